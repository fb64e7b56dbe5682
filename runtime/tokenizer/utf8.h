#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern {

// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.

// The bytes of the well-formed character at the front of `text`, 0 if there is none. `text` is not
// empty.
size_t Utf8CharBytes(std::string_view text);

// The offset of the first byte that is not part of a well-formed character; nullopt if all are.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

// The characters (code points) of well-formed `text`.
size_t Utf8Length(std::string_view text);

// The code point of a well-formed character of `bytes` bytes.
uint32_t DecodeUtf8Char(std::string_view text, size_t bytes);

// `code_point` is at most 0x10ffff and no surrogate.
void AppendUtf8(uint32_t code_point, std::string& out);

// Appends `bytes` to `out` with each ill-formed part (maximal subpart, Unicode 15 section 3.9)
// replaced by U+FFFD. Unless `final`, a beginning of a character at the end, at most 3 bytes that
// more bytes could complete, is left. Returns how many bytes were taken.
size_t AppendReplacingInvalid(std::string_view bytes, bool final, std::string& out);

}  // namespace quern
