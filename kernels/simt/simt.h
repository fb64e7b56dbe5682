#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// Runs CUDA kernels on the CPU, thread for thread, and checks them while they run. What is checked
// and what cannot be shown: docs/simt.md. Launches are serialised: one kernel runs at a time in a
// process, on the thread that launched it or that waits for it.
namespace quern::simt {

struct Dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;

  uint64_t count() const { return uint64_t{x} * y * z; }
  bool operator==(const Dim3&) const = default;
};

enum class Fault {
  kBadLaunch,         // a grid, block or shared memory that no device accepts
  kOutOfBounds,       // outside every allocation or array of the memory it was meant for
  kUninitialised,     // shared memory that the block has not written, or global memory nobody has
  kMisaligned,        // an address that is no multiple of the access's size
  kRace,              // two accesses, one of them a write, that nothing orders
  kCopyNotWaited,     // bytes that a cp.async is still to write
  kDivergentBarrier,  // the threads of a block are not at the same __syncthreads
  kDivergentWarp,     // the lanes of a mask are not at the same warp-wide operation
  kExitedLane,        // a lane of the mask of a warp-wide operation has ended or never was
  kBadMask,           // a mask without the caller
  kBadArgument,       // of an operation that the emulator carries out
  kHang,              // every thread waits, or spins, for what cannot come
  kUseAfterFree,      // of device memory that was freed, or that is freed in another stream
  kUseBeforeAllocation,  // of memory that cudaMallocAsync makes in another stream
  kHostMemory,  // of the host's that it has changed, freed or looked at while a copy was in
                // progress
};
const char* Name(Fault fault);

struct Error {
  Fault fault;
  std::string kernel;
  Dim3 block;   // blockIdx
  Dim3 thread;  // threadIdx
  std::string file;
  int line = 0;      // 0: unknown
  std::string text;  // all of it, for a person
};

// One kind of access. An instruction is a warp's: what its lanes do at the same place together.
struct AccessCounts {
  int64_t instructions = 0;
  int64_t bytes = 0;    // of all lanes
  int64_t units = 0;    // sectors of 32 bytes (global), wavefronts (shared)
  int64_t minimum = 0;  // units, if the same different bytes lay side by side
};

// What a kernel did. The accesses are only counted with Options::count_traffic.
struct Counts {
  AccessCounts global_load;     // cp.async's reads are among them
  AccessCounts global_store;    // with atomics
  AccessCounts shared_load;     // with ldmatrix
  AccessCounts shared_store;    // with cp.async's writes and atomics
  int64_t watched_sectors = 0;  // loads of Options::watched, of global_load's units
  int64_t global_sectors = 0;   // different sectors read or written: what must move once
  int64_t mma = 0;              // instructions of warps
  int64_t ldmatrix = 0;
  int64_t shuffles = 0;
  int64_t votes = 0;  // with match and reduce
  int64_t warp_barriers = 0;
  int64_t block_barriers = 0;  // completed, of blocks
  int64_t atomics = 0;         // of threads
  int64_t fences = 0;
  int64_t async_copies = 0;
  int64_t blocks = 0;
  int64_t threads = 0;
  int64_t switches = 0;  // from thread to thread
};

struct Report {
  std::string kernel;
  Dim3 grid;
  Dim3 block;
  size_t dynamic_shared_bytes = 0;
  std::vector<Error> errors;  // the first one ends the launch
  Counts counts;

  bool ok() const { return errors.empty(); }
};

// The counts as a table for a person.
std::string Text(const Report& report);

// Memory of the device, 32-byte aligned.
struct Range {
  const void* begin;
  size_t bytes;
};

struct Options {
  // The order in which threads run. 0: lanes and warps one after the other; else random.
  uint64_t seed = 0;
  int resident_blocks = 2;  // blocks in progress at once
  bool count_traffic = false;
  // Of the device, as cudaMemGetInfo tells it; more cannot be allocated.
  size_t device_memory = size_t{64} << 30;
  // Thread switches without any thread getting further, after which the kernel counts as hanging.
  int64_t spin_limit = 2'000'000;
  // Whose loads are counted apart, too, with count_traffic.
  std::vector<Range> watched = {};
  // Called with each kernel's report when it has ended; it may call nothing of CUDA's or of this.
  std::function<void(const Report&)> on_kernel = {};
};

// Of all launches from now on. At first the seed is that of the environment's QUERN_SIMT_SEED, or
// 0.
void SetOptions(const Options& options);
Options GetOptions();

// A kernel and its arguments: `run` is called once for each thread, on that thread's stack, with
// `arguments`, of which the kernel may read `argument_bytes`. `entry`: the kernel's address, for
// its name.
struct Kernel {
  void (*run)(const void* arguments);
  const void* arguments;
  size_t argument_bytes;
  const void* entry;
};
Report Launch(const Kernel& kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes);

// Of the last kernel of this process, or of the copy, set or free that has failed since.
const Report& LastReport();

}  // namespace quern::simt
