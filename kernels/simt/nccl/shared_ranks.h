#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace quern::simt {

constexpr int kMostRanks = 16;
constexpr size_t kSlotBytes = 1 << 20;

// Memory that the ranks of one communicator share, processes of one machine: how far each has come,
// and a slot of each for what it gives to the others. It is a file without a name, held open by the
// process that made it, which the others open by that process' number; so nothing of it is left
// behind, whichever of them dies.
class SharedRanks {
 public:
  struct Rank {
    std::atomic<int> device_and_one;  // 0: has not come yet
    std::atomic<uint64_t> given;      // exchanges that its slot was filled for
    std::atomic<uint64_t> taken;      // exchanges that it has what it wanted of
  };

  // Where it is found, while the process that made it lives.
  struct Place {
    int32_t process;
    int32_t file;
  };
  // A file for a new one, of zeros; -1 in `file`: the system has none.
  static Place Make();
  // Null: there is none.
  static std::shared_ptr<SharedRanks> Open(Place place);
  ~SharedRanks();
  SharedRanks(const SharedRanks&) = delete;
  SharedRanks& operator=(const SharedRanks&) = delete;

  Rank& rank(int rank) { return static_cast<Rank*>(memory_)[rank]; }
  std::byte* slot(int rank);

 private:
  explicit SharedRanks(void* memory) : memory_(memory) {}
  void* const memory_;
};

}  // namespace quern::simt
