#pragma once

#include <memory>

#include "runtime/distributed/device_communicator.h"

namespace quern::testing {

// Memory that processes share which are forked after it was made, for what they do together.
class SharedMemoryRanks {
 public:
  explicit SharedMemoryRanks(int size);
  ~SharedMemoryRanks();
  SharedMemoryRanks(const SharedMemoryRanks&) = delete;
  SharedMemoryRanks& operator=(const SharedMemoryRanks&) = delete;

  // What NCCL does between GPUs, between the emulated devices of processes: a call waits for its
  // stream, copies through the shared memory and adds up in the order of ranks.
  std::unique_ptr<DeviceCommunicator> Join(int rank);

 private:
  const int size_;
  void* memory_;
};

}  // namespace quern::testing
