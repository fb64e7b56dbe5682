// Any bytes as the file of --chat-template: an error, or templates that can be parsed or not.
#include <cstdint>

#include "runtime/tokenizer/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const quern::ChatTemplateSource model = {.file = "model.gguf",
                                                  .tokens = {{"bos_token", "<s>"}}};
  const auto source =
      quern::ParseChatTemplateFile({reinterpret_cast<const char*>(data), size}, "file", model);
  if (!source) return 0;
  for (const auto& [name, text] : source->templates) {
    (void)quern::ChatTemplate::Make(*source, name).ok();
  }
  return 0;
}
