#include "runtime/engine/text_stream.h"

#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {

int32_t CountChars(const std::string& text) { return static_cast<int32_t>(Utf8Length(text)); }

}  // namespace

std::string TextStream::Push(TokenId token) {
  const bool may_stop = unstoppable_ <= 0;
  if (!may_stop) --unstoppable_;
  const std::string decoded = decoder_.Push(token);
  decoded_chars_ += CountChars(decoded);
  std::string text = matcher_.Push(decoded, may_stop);
  given_chars_ += CountChars(text);
  return text;
}

std::string TextStream::Finish() {
  const std::string decoded = decoder_.Finish();
  decoded_chars_ += CountChars(decoded);
  std::string text = matcher_.Push(decoded, unstoppable_ <= 0);
  if (!matcher_.found()) text += matcher_.Flush();
  given_chars_ += CountChars(text);
  return text;
}

}  // namespace quern
