#include "kernels/simt/shared_memory.h"

#include <algorithm>
#include <cstring>

#include "kernels/simt/program.h"

namespace quern::kernels {
// What `extern __shared__ T shared[]` of any type refers to.
alignas(1024) thread_local uint8_t shared[simt::kMaxDynamicShared];
}  // namespace quern::kernels

namespace quern::simt {

uint8_t* DynamicShared() { return kernels::shared; }

SharedLayout::SharedLayout(size_t dynamic_bytes)
    : base_(Program::Get().thread_local_base()),
      bytes_(Program::Get().thread_local_bytes()),
      window_bytes_(dynamic_bytes),
      pieces_{{-1, DynamicShared(), dynamic_bytes, 0}},
      piece_of_(Program::Get().variables().size(), -1) {}

SharedLayout::Place SharedLayout::Find(uintptr_t address, size_t bytes) {
  const uintptr_t dynamic = reinterpret_cast<uintptr_t>(DynamicShared());
  if (address - dynamic < kMaxDynamicShared) {
    const uint64_t offset = address - dynamic;
    if (offset + bytes > pieces_[0].bytes) return {};
    return {static_cast<int64_t>(offset), DynamicShared() + offset};
  }
  const Program& program = Program::Get();
  const int variable = program.FindVariable(address - base_);
  if (variable < 0) return {};
  const Program::Variable& found = program.variables()[static_cast<size_t>(variable)];
  const uint64_t within = address - base_ - found.offset;
  if (within + bytes > found.bytes) return {};
  int& piece = piece_of_[static_cast<size_t>(variable)];
  if (piece < 0) {
    // In a cell of its own, and as far from a multiple of 128 as it really is.
    uint8_t* memory = DynamicShared() +
                      (static_cast<int64_t>(base_ + found.offset) - static_cast<int64_t>(dynamic));
    const size_t phase = reinterpret_cast<uintptr_t>(memory) % 128;
    const size_t offset = (window_bytes_ + 127) / 128 * 128 + phase;
    piece = static_cast<int>(pieces_.size());
    pieces_.push_back({variable, memory, found.bytes, offset});
    window_bytes_ = offset + found.bytes;
  }
  const Piece& at = pieces_[static_cast<size_t>(piece)];
  return {static_cast<int64_t>(at.offset + within), at.memory + within};
}

std::string SharedLayout::Describe(uintptr_t address) const {
  const uintptr_t dynamic = reinterpret_cast<uintptr_t>(DynamicShared());
  if (address - dynamic < kMaxDynamicShared) {
    return "the dynamic array (" + std::to_string(pieces_[0].bytes) + " bytes) + " +
           std::to_string(address - dynamic);
  }
  const Program& program = Program::Get();
  if (program.variables().empty()) return "(the program has no symbol table: do not strip it)";
  const int variable = program.FindVariable(address - base_);
  if (variable < 0) return "no variable";
  const Program::Variable& found = program.variables()[static_cast<size_t>(variable)];
  return found.name + " (" + std::to_string(found.bytes) + " bytes) + " +
         std::to_string(address - base_ - found.offset);
}

std::string SharedLayout::DescribeOffset(int64_t offset) const {
  const auto at = static_cast<size_t>(offset);
  for (const Piece& piece : pieces_) {
    if (at < piece.offset || at >= piece.offset + piece.bytes) continue;
    return Describe(reinterpret_cast<uintptr_t>(piece.memory) + at - piece.offset);
  }
  return "no variable";
}

void SharedMemory::Clear(const SharedLayout& layout) {
  for (Cell& cell : cells_) {
    cell.written = cell.pending = 0;
    cell.Forget();
  }
  cells_.resize((layout.window_bytes() + kCellBytes - 1) / kCellBytes);
  saved_.clear();
}

void SharedMemory::Save(const SharedLayout& layout) {
  saved_.resize(layout.pieces().size());
  for (size_t i = 0; i < saved_.size(); ++i) {
    const SharedLayout::Piece& piece = layout.pieces()[i];
    saved_[i].assign(piece.memory, piece.memory + piece.bytes);
  }
}

// A block that was never saved has not run yet, and a variable that was first touched after it was
// saved holds nothing: there is nothing to load.
void SharedMemory::Load(const SharedLayout& layout) const {
  for (size_t i = 0; i < saved_.size(); ++i) {
    std::memcpy(layout.pieces()[i].memory, saved_[i].data(), saved_[i].size());
  }
}

}  // namespace quern::simt
