#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

// Checks of arguments that the host functions of several kernels make.
namespace quern::kernels {

// Whether there is memory, so aligned.
inline bool IsAligned(const void* pointer, uintptr_t bytes) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

// "" or that `value`, which the sentence calls `name`, must be from `least` to `most`.
inline std::string CheckRange(const char* op, const char* name, int64_t value, int64_t least,
                              int64_t most) {
  if (value >= least && value <= most) return "";
  return std::string(op) + ": " + name + " is " + std::to_string(value) + "; it must be from " +
         std::to_string(least) + " to " + std::to_string(most);
}

// The same of a multiple of `unit`.
inline std::string CheckMultiple(const char* op, const char* name, int64_t value, int64_t unit,
                                 int64_t least,
                                 int64_t most = std::numeric_limits<int64_t>::max()) {
  if (value % unit == 0 && value >= least && value <= most) return "";
  std::string text = std::string(op) + ": " + name + " is " + std::to_string(value) +
                     "; it must be a multiple of " + std::to_string(unit) + " and at least " +
                     std::to_string(least);
  if (most != std::numeric_limits<int64_t>::max()) text += ", at most " + std::to_string(most);
  return text;
}

// "" or that the pointer must be device memory with that alignment.
inline std::string CheckPointer(const char* op, const char* name, const void* pointer,
                                uintptr_t alignment) {
  if (IsAligned(pointer, alignment)) return "";
  return std::string(op) + ": " + name + (pointer == nullptr ? " is null" : " is misaligned") +
         "; it must be device memory with " + std::to_string(alignment) + "-byte alignment";
}

// The first text that is not empty: the first thing that is wrong.
inline std::string FirstOf(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return "";
}

}  // namespace quern::kernels
