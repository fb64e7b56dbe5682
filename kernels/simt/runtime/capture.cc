#include "kernels/simt/runtime/capture.h"

#include <algorithm>

namespace quern::simt {
namespace {

std::vector<std::shared_ptr<Capture>>& Captures() {
  static auto* captures = new std::vector<std::shared_ptr<Capture>>;
  return *captures;
}
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

void Join(CUstream_st& stream, const std::shared_ptr<Capture>& capture) {
  stream.capture = capture;
  stream.branch = capture->graph->branches++;
  stream.tips.clear();
  capture->streams.push_back(&stream);
}

void End(Capture& capture) {
  capture.ended = true;
  for (CUstream_st* stream : capture.streams) {
    stream->capture = nullptr;
    stream->tips.clear();
  }
  std::erase_if(Captures(), [&capture](const auto& one) { return one.get() == &capture; });
}

// Whether the nodes and all that they come after are all there is.
bool ReachesAll(const CUgraph_st& graph, std::vector<int> nodes) {
  std::vector<bool> seen(graph.nodes.size());
  while (!nodes.empty()) {
    const auto node = static_cast<size_t>(nodes.back());
    nodes.pop_back();
    if (seen[node]) continue;
    seen[node] = true;
    const std::vector<int>& before = graph.nodes[node].before;
    nodes.insert(nodes.end(), before.begin(), before.end());
  }
  return std::find(seen.begin(), seen.end(), false) == seen.end();
}

}  // namespace

cudaError_t Invalidate(Capture& capture, cudaError_t error) {
  capture.invalid = true;
  return error;
}

cudaError_t RefuseUnsafe() {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (const auto& capture : Captures()) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool forbids = own ? capture->mode != cudaStreamCaptureModeRelaxed
                             : capture->mode == cudaStreamCaptureModeGlobal &&
                                   thread_mode == cudaStreamCaptureModeGlobal;
    if (forbids) return Invalidate(*capture, cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

cudaError_t RefuseDefault() {
  for (const auto& capture : Captures()) {
    for (const CUstream_st* stream : capture->streams) {
      if (stream->blocking) return Invalidate(*capture, cudaErrorStreamCaptureImplicit);
    }
  }
  return cudaSuccess;
}

cudaError_t RefuseWaiting(CUstream_st& stream) {
  if (stream.capture != nullptr) {
    return Invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported);
  }
  return &stream == &DefaultStream() ? RefuseDefault() : cudaSuccess;
}

cudaError_t AddNode(CUstream_st& stream, const Work& work) {
  Capture& capture = *stream.capture;
  if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
  if (work.kind == Work::Kind::kAllocate || work.kind == Work::Kind::kFree) {
    return Invalidate(capture, cudaErrorNotSupported);
  }
  const int node = static_cast<int>(capture.graph->nodes.size());
  capture.graph->nodes.push_back({work, stream.tips, stream.branch});
  stream.tips = {node};
  return cudaSuccess;
}

cudaError_t JoinCapture(CUstream_st& stream, const CapturedEvent& event) {
  if (event.capture->ended) return cudaErrorCapturedEvent;
  if (&stream == &DefaultStream()) {
    return Invalidate(*event.capture, cudaErrorStreamCaptureImplicit);
  }
  if (event.capture->invalid) return cudaErrorStreamCaptureInvalidated;
  if (stream.capture == nullptr) Join(stream, event.capture);
  if (stream.capture != event.capture) {
    Invalidate(*stream.capture, cudaErrorStreamCaptureMerge);
    return Invalidate(*event.capture, cudaErrorStreamCaptureMerge);
  }
  for (int tip : event.tips) {
    if (std::find(stream.tips.begin(), stream.tips.end(), tip) == stream.tips.end()) {
      stream.tips.push_back(tip);
    }
  }
  return cudaSuccess;
}

void LeaveCapture(CUstream_st& stream) {
  if (stream.capture == nullptr) return;
  const std::shared_ptr<Capture> capture = stream.capture;
  capture->invalid = true;
  std::erase(capture->streams, &stream);
  if (capture->origin == &stream) End(*capture);
}

}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::Capture;
using quern::simt::Lock;

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return Api([&](Lock&) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream == &quern::simt::DefaultStream()) return cudaErrorStreamCaptureUnsupported;
    if (stream->capture != nullptr) return cudaErrorIllegalState;
    auto capture = std::make_shared<Capture>(Capture{stream, mode, std::this_thread::get_id()});
    quern::simt::Join(*stream, capture);
    quern::simt::Captures().push_back(std::move(capture));
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return Api([&](Lock&) {
    *graph = nullptr;
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<Capture> capture = stream->capture;
    if (capture == nullptr) return cudaErrorIllegalState;
    if (capture->origin != stream) {
      return quern::simt::Invalidate(*capture, cudaErrorStreamCaptureUnmatched);
    }
    if (capture->mode != cudaStreamCaptureModeRelaxed &&
        capture->thread != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    const bool joined = quern::simt::ReachesAll(*capture->graph, stream->tips);
    capture->graph->tips = stream->tips;
    quern::simt::End(*capture);
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (!joined) return cudaErrorStreamCaptureUnjoined;
    *graph = capture->graph.release();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return Api([&](Lock&) {
    const CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    *status = stream->capture == nullptr ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, quern::simt::thread_mode);
  return cudaSuccess;
}
