#include <cstddef>
#include <cstdint>

#include "kernels/simt/machine.h"

// What the compiler calls in kernels: -fsanitize=thread before each access to memory that may be
// another's, -fsanitize=bounds where an index leaves its array. The names are GCC's; its own
// libraries with them are not linked.
namespace quern::simt {
namespace {

inline void Check(void* address, size_t bytes, Touch touch, bool vector, const void* site) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  if (running.thread == nullptr || at - running.stack < running.stack_bytes) return;
  Machine& machine = Machine::Get();
  machine.Access(at, bytes, touch, vector, Program::SiteOf(site));
  if (IsAtomic(touch)) machine.MeetAt(at, !IsWrite(touch), IsWrite(touch));  // volatile
}

// As GCC lays them out.
struct SourceLocation {
  const char* file;
  uint32_t line;
  uint32_t column;
};
struct TypeDescriptor {
  uint16_t kind;
  uint16_t info;
  char name[1];
};
struct OutOfBoundsData {
  SourceLocation where;
  const TypeDescriptor* array;
  const TypeDescriptor* index;
};

[[noreturn]] void FailBounds(const OutOfBoundsData& data, uint64_t index) {
  // Bit 0 of an integer's info: signed; the others: log2 of its bits.
  const int bits = 1 << (data.index->info >> 1);
  const bool is_signed = (data.index->info & 1) != 0;
  const uint64_t value = bits >= 64 ? index : index & ((uint64_t{1} << bits) - 1);
  const std::string text =
      is_signed ? std::to_string(static_cast<int64_t>(value << (64 - bits)) >> (64 - bits))
                : std::to_string(value);
  const std::string what =
      std::string("index ") + text + " of an array of type " + data.array->name;
  if (running.thread == nullptr) {
    std::fprintf(stderr, "%s:%u: %s\n", data.where.file, data.where.line, what.c_str());
    std::abort();
  }
  Machine::Get().Fail(Fault::kOutOfBounds, what, 0,
                      {data.where.file, static_cast<int>(data.where.line)});
}

}  // namespace
}  // namespace quern::simt

// NOLINTBEGIN(bugprone-reserved-identifier): the compiler's names
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void* /*caller*/) {}
void __tsan_func_exit() {}

#define QUERN_SIMT_HOOK(name, bytes, touch)                             \
  void name(void* address) {                                            \
    quern::simt::Check(address, bytes, quern::simt::Touch::touch, true, \
                       __builtin_return_address(0));                    \
  }
#define QUERN_SIMT_HOOKS(bytes)                                    \
  QUERN_SIMT_HOOK(__tsan_read##bytes, bytes, kRead)                \
  QUERN_SIMT_HOOK(__tsan_write##bytes, bytes, kWrite)              \
  QUERN_SIMT_HOOK(__tsan_volatile_read##bytes, bytes, kAtomicRead) \
  QUERN_SIMT_HOOK(__tsan_volatile_write##bytes, bytes, kAtomicWrite)
QUERN_SIMT_HOOKS(1)
QUERN_SIMT_HOOKS(2)
QUERN_SIMT_HOOKS(4)
QUERN_SIMT_HOOKS(8)
QUERN_SIMT_HOOKS(16)

// Of a size that no instruction has, or with less alignment than its size: several accesses.
void __tsan_read_range(void* address, size_t bytes) {
  quern::simt::Check(address, bytes, quern::simt::Touch::kRead, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  quern::simt::Check(address, bytes, quern::simt::Touch::kWrite, false,
                     __builtin_return_address(0));
}
void __tsan_vptr_update(void** address, void* /*value*/) {
  quern::simt::Check(static_cast<void*>(address), sizeof(void*), quern::simt::Touch::kWrite, true,
                     __builtin_return_address(0));
}

// The guard of a function's static variable, in host code beside kernels. Other std::atomic
// operations have no hook: code with them does not link.
unsigned char __tsan_atomic8_load(const volatile unsigned char* address, int /*order*/) {
  return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}

void __ubsan_handle_out_of_bounds(void* data, uintptr_t index) {
  quern::simt::FailBounds(*static_cast<quern::simt::OutOfBoundsData*>(data), index);
}
void __ubsan_handle_out_of_bounds_abort(void* data, uintptr_t index) {
  quern::simt::FailBounds(*static_cast<quern::simt::OutOfBoundsData*>(data), index);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier)
