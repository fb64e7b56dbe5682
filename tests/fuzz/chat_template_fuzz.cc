// Any text as a chat template: an error or a rendering, within the limits.
#include <cstdint>

#include "runtime/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using nlohmann::ordered_json;
  static const ordered_json messages = {{{"role", "system"}, {"content", "Be \xc3\xa9."}},
                                        {{"role", "user"}, {"content", " Hi \n"}},
                                        {{"role", "assistant"}, {"content", "<think>x</think>y"}}};
  static const ordered_json tools = {{{"function", {{"name", "f"}, {"parameters", {{"a", 1.5}}}}}}};
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto parsed = quern::ChatTemplate::Make(
      {.file = "f", .templates = {{"default", text}}, .tokens = {{"bos_token", "<s>"}}});
  if (parsed) (void)(*parsed)->Render({.messages = messages, .tools = tools}).ok();
  return 0;
}
