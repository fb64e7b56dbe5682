#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace quern {

// What the first bytes of a file that should have been a model look like ("a safetensors file", "a
// web page"), with what to do about it; empty when they look like nothing known. For error
// messages.
std::string_view DescribeSignature(std::span<const std::byte> head);

// Up to `limit` bytes as they can be shown on one line: printable ASCII as it is, the rest as \xNN,
// followed by "..." where more were left out.
std::string Printable(std::string_view bytes, size_t limit = 64);

}  // namespace quern
