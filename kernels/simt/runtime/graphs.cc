#include <set>

#include "kernels/simt/runtime/capture.h"
#include "kernels/simt/runtime/streams.h"

struct CUgraphExec_st {
  CUgraph_st graph;
  std::vector<quern::simt::Line> lines;  // by branch
  quern::simt::TaskRef last;             // of the last launch: launches take turns
};

namespace quern::simt {
namespace {

std::set<cudaGraphExec_t>& Executables() {
  static auto* executables = new std::set<cudaGraphExec_t>;
  return *executables;
}
int instantiated = 0;

Work Marker(const char* name, Where where) {
  Work work;
  work.name = name;
  work.where = where;
  return work;
}

// A task before and one after those of the nodes, in the stream; branches are lines of their own.
void LaunchNodes(CUgraphExec_st& executable, CUstream_st& stream, Where where) {
  Scheduler& scheduler = Scheduler::Get();
  OrderWithDefault(stream);
  stream.line.WaitFor(executable.last);
  const TaskRef begin = scheduler.Enqueue(stream.line, Marker("cudaGraphLaunch", where));
  std::vector<TaskRef> tasks;
  for (const GraphNode& node : executable.graph.nodes) {
    Line& line = executable.lines[static_cast<size_t>(node.branch)];
    line.WaitFor(begin);
    for (int before : node.before) line.WaitFor(tasks[static_cast<size_t>(before)]);
    tasks.push_back(scheduler.Enqueue(line, node.work));
  }
  for (int tip : executable.graph.tips) stream.line.WaitFor(tasks[static_cast<size_t>(tip)]);
  executable.last = scheduler.Enqueue(stream.line, Marker("the graph's end", where));
}

cudaGraphExecUpdateResult Update(CUgraphExec_st& executable, const CUgraph_st& graph) {
  std::vector<GraphNode>& nodes = executable.graph.nodes;
  if (nodes.size() != graph.nodes.size() || executable.graph.tips != graph.tips) {
    return cudaGraphExecUpdateErrorTopologyChanged;
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].before != graph.nodes[i].before || nodes[i].branch != graph.nodes[i].branch) {
      return cudaGraphExecUpdateErrorTopologyChanged;
    }
    if (nodes[i].work.kind != graph.nodes[i].work.kind) {
      return cudaGraphExecUpdateErrorNodeTypeChanged;
    }
    if (nodes[i].work.host_use != graph.nodes[i].work.host_use) {
      return cudaGraphExecUpdateErrorParametersChanged;
    }
  }
  executable.graph = graph;
  return cudaGraphExecUpdateSuccess;
}

}  // namespace
}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::Lock;
using quern::simt::Scheduler;

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return Api([&](Lock&) {
    if (graph == nullptr || count == nullptr) return cudaErrorInvalidValue;
    if (nodes != nullptr) return cudaErrorNotSupported;
    *count = graph->nodes.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long flags) {
  return Api([&](Lock&) {
    if (executable == nullptr || graph == nullptr) return cudaErrorInvalidValue;
    if (flags != 0) return cudaErrorNotSupported;
    auto* made = new CUgraphExec_st{*graph, {}, nullptr};
    const std::string name = "graph " + std::to_string(++quern::simt::instantiated);
    for (int i = 0; i < graph->branches; ++i) {
      made->lines.push_back(Scheduler::Get().NewLine(name + ", branch " + std::to_string(i + 1)));
    }
    quern::simt::Executables().insert(made);
    *executable = made;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  return Api([&](Lock&) {
    return quern::simt::Executables().contains(executable) &&
                   quern::simt::FindStream(stream) != nullptr
               ? cudaSuccess
               : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle,
                            quern::simt::Where where) {
  return Api([&](Lock&) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (!quern::simt::Executables().contains(executable)) return cudaErrorInvalidValue;
    if (stream->capture != nullptr) {
      return quern::simt::Invalidate(*stream->capture, cudaErrorNotSupported);
    }
    if (stream == &quern::simt::DefaultStream()) {
      if (const cudaError_t error = quern::simt::RefuseDefault()) return error;
    }
    quern::simt::LaunchNodes(*executable, *stream, where);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return Api([&](Lock&) {
    delete graph;
    return cudaSuccess;
  });
}

// What has been launched goes on.
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return Api([&](Lock&) {
    if (quern::simt::Executables().erase(executable) == 0) return cudaErrorInvalidValue;
    delete executable;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* result) {
  return Api([&](Lock&) {
    *result = {cudaGraphExecUpdateError, nullptr, nullptr};
    if (!quern::simt::Executables().contains(executable) || graph == nullptr) {
      return cudaErrorInvalidValue;
    }
    result->result = quern::simt::Update(*executable, *graph);
    return result->result == cudaGraphExecUpdateSuccess ? cudaSuccess
                                                        : cudaErrorGraphExecUpdateFailure;
  });
}
