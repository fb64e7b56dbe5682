// Any bytes as a GGUF file: an error or a file whose every value and tensor can be read.
#include <cstdint>

#include "runtime/formats/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto file = quern::GgufFile::Parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) return 0;
  uint64_t sum = 0;
  for (const std::string_view key : (*file)->Keys()) {
    sum += (*file)->FindUint(key).value_or(0) + (*file)->FindBool(key).value_or(false);
    sum += (*file)->FindFloat(key).has_value();
    if (const auto text = (*file)->FindString(key)) {
      for (const char c : *text) sum += static_cast<uint8_t>(c);
    }
    if (const auto list = (*file)->FindStringArray(key)) {
      for (const auto text : *list) {
        for (const char c : text) sum += static_cast<uint8_t>(c);
      }
    }
    if (const auto list = (*file)->FindIntArray(key, 1 << 20)) sum += list->size();
    if (const auto list = (*file)->FindFloatArray(key)) sum += list->size();
  }
  for (const quern::GgufTensor& tensor : (*file)->tensors()) {
    for (const std::byte byte : tensor.data) sum += static_cast<uint8_t>(byte);
  }
  volatile uint64_t sink = sum;
  (void)sink;
  return 0;
}
