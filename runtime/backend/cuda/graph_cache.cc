#include "runtime/backend/cuda/graph_cache.h"

#include <algorithm>

#include "runtime/backend/cuda/cuda_status.h"

namespace quern {

Status GraphCache::Run(const StepSize& size, cudaStream_t stream,
                       const std::function<Status()>& launch) {
  Entry& entry = Find(size);
  const bool seen = entry.last_use > 0;
  entry.last_use = ++uses_;
  if (!seen) {
    ++launched_;
    return launch();
  }
  if (entry.graph == nullptr) {
    QUERN_TRY(Record(entry, stream, launch));
    ++recorded_;
  } else {
    ++repeated_;
  }
  return CudaStatus(cudaGraphLaunch(entry.graph, stream), "repeating a recorded step");
}

GraphCache::Entry& GraphCache::Find(const StepSize& size) {
  const auto found = std::ranges::find(entries_, size, &Entry::size);
  if (found != entries_.end()) return *found;
  if (entries_.size() < most_) return entries_.emplace_back(Entry{size});
  Entry& oldest = *std::ranges::min_element(entries_, {}, &Entry::last_use);
  if (oldest.graph != nullptr) static_cast<void>(cudaGraphExecDestroy(oldest.graph));
  oldest = {size};
  return oldest;
}

Status GraphCache::Record(Entry& entry, cudaStream_t stream,
                          const std::function<Status()>& launch) {
  QUERN_TRY(CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                       "recording a step"));
  const Status launched = launch();
  cudaGraph_t graph = nullptr;
  const Status ended = CudaStatus(cudaStreamEndCapture(stream, &graph), "recording a step");
  Status made = launched.ok() ? ended : launched;
  if (made) made = CudaStatus(cudaGraphInstantiate(&entry.graph, graph, 0), "recording a step");
  if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  return made;
}

void GraphCache::Clear() {
  for (const Entry& entry : entries_) {
    if (entry.graph != nullptr) static_cast<void>(cudaGraphExecDestroy(entry.graph));
  }
  entries_.clear();
}

}  // namespace quern
