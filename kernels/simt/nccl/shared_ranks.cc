#include "kernels/simt/nccl/shared_ranks.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

namespace quern::simt {
namespace {

constexpr size_t kHeadBytes = 4096;
constexpr size_t kAllBytes = kHeadBytes + kMostRanks * kSlotBytes;

}  // namespace

static_assert(sizeof(SharedRanks::Rank) * kMostRanks <= kHeadBytes);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

SharedRanks::Place SharedRanks::Make() {
  const int file = memfd_create("emulated-nccl", MFD_CLOEXEC);
  if (file >= 0 && ftruncate(file, kAllBytes) != 0) {
    close(file);
    return {getpid(), -1};
  }
  return {getpid(), file};  // open until the process ends: others may come late
}

std::shared_ptr<SharedRanks> SharedRanks::Open(Place place) {
  const std::string path =
      "/proc/" + std::to_string(place.process) + "/fd/" + std::to_string(place.file);
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  void* const memory = mmap(nullptr, kAllBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return nullptr;
  return std::shared_ptr<SharedRanks>(new SharedRanks(memory));
}

SharedRanks::~SharedRanks() { munmap(memory_, kAllBytes); }

std::byte* SharedRanks::slot(int rank) {
  return static_cast<std::byte*>(memory_) + kHeadBytes + static_cast<size_t>(rank) * kSlotBytes;
}

}  // namespace quern::simt
