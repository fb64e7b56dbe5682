#pragma once

#include <cstddef>
#include <cstdint>

// What the headers in overlay/ are made of: the operations of a running CUDA thread. All of these
// are called by kernels on the emulator, and only there.
namespace quern::simt {

// The source line of a call.
struct Where {
  const char* file;
  int line;

  static constexpr Where Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Index {
  unsigned x, y, z;
};
Index ThreadIndex();
Index BlockIndex();

// Whether a kernel's thread is what runs now.
bool OnDevice();

// __syncthreads and its forms that count: returns for how many threads `value` was not zero.
int BlockBarrier(int value, const char* name, Where where);
// PTX barrier.sync and barrier.arrive: `threads` in all, 0 for all of the block's.
void NamedBarrierSync(int barrier, int threads, Where where);
void NamedBarrierArrive(int barrier, int threads, Where where);

void WarpBarrier(uint32_t mask, Where where);

enum class ShuffleKind { kIndex, kUp, kDown, kXor };
// `name` for errors. Values of up to 8 bytes; a lane whose source lies outside its segment of
// `width` lanes gets its own.
uint64_t Shuffle(ShuffleKind kind, uint32_t mask, uint64_t value, int argument, int width,
                 const char* name, Where where);
uint32_t Ballot(uint32_t mask, bool predicate, const char* name, Where where);
// The lanes of the mask whose value is this one's.
uint32_t MatchAny(uint32_t mask, uint64_t value, Where where);
enum class ReduceKind { kAdd, kMin, kMax, kAnd, kOr, kXor };
uint32_t Reduce(ReduceKind kind, uint32_t mask, uint32_t value, bool is_signed, const char* name,
                Where where);
uint32_t ActiveMask();

void ThreadFence();
// Before and after an atomic operation on `bytes` bytes: checks the address, lets others run
// before it; then takes and gives what atomics carry from thread to thread. Between them the caller
// reads and writes. `site`: an address in the kernel, to which the call returns.
void BeginAtomic(void* address, size_t bytes, const void* site);
void EndAtomic(void* address, bool changed);

// cp.async of 4, 8 or 16 bytes.
void CopyAsync(void* shared, const void* global, int bytes, bool valid);
void CommitCopies();
void WaitForCopies(int groups_left);
void WaitForAllCopies();

// ldmatrix of 1, 2 or 4 matrices of 8 rows of 16 bytes.
void LoadMatrices(uint32_t* result, int matrices, bool transposed, const void* row, Where where);

// The operands of one lane as the instruction's registers.
enum class MmaKind { kF16K8, kF16K16, kBf16K8, kBf16K16, kS8K32, kE4m3K32 };
struct MmaOperands {
  uint32_t a[4];
  uint32_t b[2];
  uint32_t c[4];  // float32, or int32 for kS8K32; the result goes here, too
};
void Mma(MmaKind kind, MmaOperands& operands, Where where);

}  // namespace quern::simt
