#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "kernels/simt/runtime/streams.h"

namespace quern::simt {

// Work that a graph does, after that of `before`. What one stream was asked for is a branch.
struct GraphNode {
  Work work;
  std::vector<int> before;
  int branch;
};

}  // namespace quern::simt

struct CUgraph_st {
  std::vector<quern::simt::GraphNode> nodes;
  int branches = 0;
  std::vector<int> tips;  // the graph is done when these are
};

namespace quern::simt {

// From cudaStreamBeginCapture to cudaStreamEndCapture.
struct Capture {
  CUstream_st* origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool invalid = false;
  bool ended = false;
  std::unique_ptr<CUgraph_st> graph = std::make_unique<CUgraph_st>();
  std::vector<CUstream_st*> streams;  // origin and those that have joined
};

// An event of a captured stream, and what the stream had come to.
struct CapturedEvent {
  std::shared_ptr<Capture> capture;
  std::vector<int> tips;
};
// Lets the stream wait for the event, so that it is captured from now on if it was not.
cudaError_t JoinCapture(CUstream_st& stream, const CapturedEvent& event);
cudaError_t Invalidate(Capture& capture, cudaError_t error);

}  // namespace quern::simt
