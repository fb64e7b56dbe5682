#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/simt/shadow.h"

namespace quern::simt {

// The most dynamic shared memory that a thread block can have (compute capability 9.0).
inline constexpr size_t kMaxDynamicShared = 232448;

// `extern __shared__ T shared[]` in namespace quern::kernels is this variable of the thread that
// launched the kernel.
inline constexpr const char* kDynamicSharedSymbol = "_ZN5quern7kernels6sharedE";
uint8_t* DynamicShared();

// Where the variables of shared memory of one launch lie: in the thread-local storage that they
// really are, and in the window of addresses that a block would have. The dynamic array is at the
// window's start; a static variable is given its place when it is first touched.
class SharedLayout {
 public:
  explicit SharedLayout(size_t dynamic_bytes);

  bool Contains(uintptr_t address) const { return address - base_ < bytes_; }

  struct Place {
    int64_t offset = -1;  // within the window; -1: outside of every variable
    uint8_t* memory = nullptr;
  };
  // Where `bytes` bytes at an address of thread-local storage are, if they lie in one variable.
  Place Find(uintptr_t address, size_t bytes);
  // "tile + 12", for an address that was found or was not.
  std::string Describe(uintptr_t address) const;
  // Of an offset in the window.
  std::string DescribeOffset(int64_t offset) const;

  size_t window_bytes() const { return window_bytes_; }

  struct Piece {
    int variable;  // in Program::variables(); -1: the dynamic array
    uint8_t* memory;
    size_t bytes;
    size_t offset;
  };
  const std::vector<Piece>& pieces() const { return pieces_; }

 private:
  uintptr_t base_;
  size_t bytes_;
  size_t window_bytes_ = 0;
  std::vector<Piece> pieces_;
  std::vector<int> piece_of_;  // by variable
};

// A block's shared memory. The bytes lie in the layout's variables while the block runs, else here.
class SharedMemory {
 public:
  // Begins a block whose memory holds nothing.
  void Clear(const SharedLayout& layout);
  Cell& At(const SharedLayout& layout, int64_t offset) {
    const auto cell = static_cast<size_t>(offset) / kCellBytes;
    if (cell >= cells_.size()) cells_.resize((layout.window_bytes() + kCellBytes - 1) / kCellBytes);
    return cells_[cell];
  }
  void Save(const SharedLayout& layout);
  void Load(const SharedLayout& layout) const;

 private:
  std::vector<Cell> cells_;
  std::vector<std::vector<uint8_t>> saved_;  // by piece
};

}  // namespace quern::simt
