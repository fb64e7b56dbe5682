#include "runtime/engine/text_stream.h"

namespace quern {

std::string TextStream::Finish() {
  std::string text = matcher_.Push(decoder_.Finish());
  if (!matcher_.found()) text += matcher_.Flush();
  return text;
}

}  // namespace quern
