#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace quern {

// GPT-2's alphabet for bytes: the 188 printable ones of Latin-1 stand for themselves, the other 68
// for U+0100 onwards, so that every token of a byte-level vocabulary is visible text ("Ġ" is the
// space). Source: openai/gpt-2, encoder.py, bytes_to_unicode().

// The text that stands for `bytes`.
std::string ByteLevelEncode(std::string_view bytes);

// The bytes that `text` stands for; nullopt if it holds a character outside the alphabet or is not
// UTF-8.
std::optional<std::string> ByteLevelDecode(std::string_view text);

}  // namespace quern
