#include "runtime/server/echo.h"

#include <algorithm>
#include <utility>

#include "runtime/tokenizer/utf8.h"

namespace quern::server {
namespace {

int32_t CountChars(std::string_view text) { return static_cast<int32_t>(Utf8Length(text)); }

}  // namespace

Echo MakeEcho(std::span<const TokenId> tokens, std::optional<std::string> text, bool with_offsets,
              const Tokenizer& tokenizer) {
  Echo echo;
  // A BOS that was added is not in the text; one that the text names is.
  const bool named = text && tokenizer.bos() &&
                     text->starts_with(tokenizer.TokenBytes(*tokenizer.bos(), true)) &&
                     (tokens.size() < 2 || tokens[1] != tokenizer.bos());
  const bool bos_is_text = !text || named;
  echo.text = text ? *std::move(text) : tokenizer.Decode(tokens, /*render_special=*/true);
  echo.chars = CountChars(echo.text);
  if (!with_offsets) return echo;
  std::vector<int32_t> before;
  int32_t chars = 0;
  for (const TokenId token : tokens) {
    before.push_back(chars);
    const bool is_bos = before.size() == 1 && tokenizer.bos() == token;
    if (is_bos && !bos_is_text) continue;
    chars += CountChars(tokenizer.TokenBytes(token, /*render_special=*/true));
  }
  // A tokenizer that puts a space before the first word has one character more.
  const int32_t added = chars == echo.chars + 1 ? 1 : 0;
  for (const int32_t at : before) {
    echo.offsets.push_back(std::clamp(at - added, 0, echo.chars));
  }
  return echo;
}

}  // namespace quern::server
