#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/base/result.h"

struct CUstream_st;

namespace quern {

// What of NCCL's C interface is used, with the types and numbers of its nccl.h (2.x: "NCCL API" in
// NVIDIA's documentation), as the library is not there when this is compiled.
namespace nccl {

using Communicator = struct ncclComm*;
struct UniqueId {
  char internal[128];
};
enum Outcome : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};
enum DataType : int { kFloat16 = 6, kFloat32 = 7, kBfloat16 = 9 };
enum Operation : int { kSum = 0 };
// ncclConfig_t as NCCL 2.14 had it, of which later versions take what there is and set the rest as
// they would by themselves.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21400;
  int blocking = 0;
};

}  // namespace nccl

// The library, open for as long as the process lives: it has threads of its own.
struct NcclLibrary {
  // kUnsupported: not there, something else, or older than 2.18; with what to do.
  static Result<NcclLibrary> Open(const char* name);

  // "unhandled cuda error: CUDA driver version is insufficient ...".
  std::string Describe(nccl::Outcome outcome, nccl::Communicator communicator) const;

  int version = 0;  // 22809: 2.28.9

  // As ncclGetUniqueId and so on.
  nccl::Outcome (*get_unique_id)(nccl::UniqueId*) = nullptr;
  nccl::Outcome (*comm_init_rank_config)(nccl::Communicator*, int ranks, nccl::UniqueId, int rank,
                                         nccl::Config*) = nullptr;
  nccl::Outcome (*comm_abort)(nccl::Communicator) = nullptr;
  nccl::Outcome (*comm_get_async_error)(nccl::Communicator, nccl::Outcome*) = nullptr;
  nccl::Outcome (*all_reduce)(const void*, void*, size_t, nccl::DataType, nccl::Operation,
                              nccl::Communicator, CUstream_st*) = nullptr;
  nccl::Outcome (*all_gather)(const void*, void*, size_t, nccl::DataType, nccl::Communicator,
                              CUstream_st*) = nullptr;

 private:
  nccl::Outcome (*get_version_)(int*) = nullptr;
  const char* (*get_error_string_)(nccl::Outcome) = nullptr;
  const char* (*get_last_error_)(nccl::Communicator) = nullptr;
};

}  // namespace quern
