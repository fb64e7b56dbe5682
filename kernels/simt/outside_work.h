#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/simt/cuda_runtime_api.h"

namespace quern::simt {

// Work in a stream that is neither a kernel nor a copy of the runtime's: what a library does there
// together with another process. Both functions are called with the runtime's lock, and may call
// nothing of it.
struct OutsideWork {
  std::string name;
  // Whether what it waits for has come. Asked again and again until then: by whoever waits for the
  // stream, or asks for it.
  std::function<bool()> may_begin;
  std::vector<Range> reads;   // of the device's memory, checked as a copy's are
  std::vector<Range> writes;  // the same
  std::function<void()> run;  // touches these and no other memory of the device
};

// Puts it in the stream, or as a node into what the stream records. Thread-safe.
cudaError_t SubmitOutsideWork(cudaStream_t stream, const OutsideWork& work,
                              Where where = Where::Here());

}  // namespace quern::simt
