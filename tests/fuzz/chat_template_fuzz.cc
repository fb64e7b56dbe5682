// Any text as a chat template: an error or a rendering, within the limits.
#include <cstdint>

#include "runtime/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nlohmann::json messages = {
      {{"role", "system"}, {"content", "Be \xc3\xa9."}},
      {{"role", "user"}, {"content", " Hi \n"}},
      {{"role", "assistant"}, {"content", "<think>x</think>y"}}};
  auto parsed =
      quern::ChatTemplate::Parse({reinterpret_cast<const char*>(data), size}, "<s>", "</s>");
  if (parsed) (void)(*parsed)->Render(messages, nullptr, true).ok();
  return 0;
}
