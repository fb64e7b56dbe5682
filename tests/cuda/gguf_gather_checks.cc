// GgufGather against the rows of the packed table as the host unpacks them, times the scale: bit
// for bit, of ragged tables, with poisoned outputs and wrong ids.

#include <cmath>
#include <limits>

#include "quern/kernels/gguf_gather.h"
#include "tests/cuda/gguf_test_support.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckGgufGather(std::mt19937_64& random, bool small);

namespace {

uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// Every row at least once where there are tokens enough, every third id out of range.
std::vector<int32_t> GatherIds(std::mt19937_64& random, int64_t vocab, int64_t tokens) {
  const int32_t wrong_ids[] = {-1, static_cast<int32_t>(vocab), std::numeric_limits<int32_t>::min(),
                               std::numeric_limits<int32_t>::max()};
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  const auto first = static_cast<int64_t>(random() % static_cast<uint64_t>(vocab));
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    ids[i] =
        i % 3 == 2 ? wrong_ids[i / 3 % 4] : static_cast<int32_t>((first + at - at / 3) % vocab);
  }
  return ids;
}

// That the row of each token is what its id says, `absent` where that is out of range.
void ExpectGathered(const GgufGatherArgs& args, const GgufMatrix& host,
                    const std::vector<int32_t>& ids, const std::vector<float>& got,
                    const std::string& what) {
  std::vector<float> row(static_cast<size_t>(host.cols));
  int64_t different = 0;
  for (int64_t token = 0; token < args.tokens; ++token) {
    const int64_t at = int64_t{ids[static_cast<size_t>(token)]} - args.first;
    const bool known = at >= 0 && at < host.rows;
    if (known) UnpackGgufRow(host, at, row.data());
    for (int64_t i = 0; i < host.cols; ++i) {
      // The kernel's own NaN, not the poison.
      const uint32_t right = BitsOf(known ? row[static_cast<size_t>(i)] * args.scale : args.absent);
      if (BitsOf(got[static_cast<size_t>(token * host.cols + i)]) != right) ++different;
    }
  }
  Expect(different == 0, what + ": " + std::to_string(different) + " values differ");
}

void GatherCase(std::mt19937_64& random, WeightType type, int64_t vocab, int64_t blocks,
                int64_t tokens, float scale, int32_t first = 0) {
  const GgufLayer table(random, type, vocab, blocks);
  const int64_t hidden = table.matrix.cols;
  const std::string what = std::string("gather ") + FindWeightTypeInfo(type)->name + " " +
                           std::to_string(vocab) + "x" + std::to_string(hidden) + " tokens " +
                           std::to_string(tokens);
  std::vector<int32_t> ids = GatherIds(random, vocab, tokens);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] += i % 3 == 2 ? 0 : first;
  const DeviceMemory device_ids(ids);
  const int64_t stride = hidden + 4;
  DeviceMemory out(static_cast<size_t>((tokens + 1) * stride) * 4);
  out.Fill(0xff);
  GgufGatherArgs args{table.matrix, device_ids.As<int32_t>(), tokens,
                      scale,        out.As<float>(),          stride};
  if (first > 0) {  // a part of a vocabulary
    args.first = first;
    args.absent = 0;
  }
  const std::string wrong = GgufGather(args, nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto memory = out.Read<float>(0, out.bytes() / 4);
  ExpectNothingOutside(memory, tokens, hidden, stride, what);
  GgufMatrix host = table.matrix;
  host.data = table.packed.data();
  ExpectGathered(args, host, ids, Gathered(memory, tokens, hidden, stride), what);
}

// Captured, it gathers what the ids say when the graph runs.
void GatherInAGraph(std::mt19937_64& random) {
  const GgufLayer table(random, WeightType::kQ8_0, 33, 2);
  const std::vector<int32_t> before = {1, 2, 3};
  const std::vector<int32_t> after = {32, 0, 33};
  const DeviceMemory ids(before);
  const DeviceMemory out(3 * 64 * 4);
  const GgufGatherArgs args{table.matrix, ids.As<int32_t>(), 3, 2, out.As<float>(), 64};
  cudaStream_t stream;
  QUERN_CUDA_CHECK(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t launched;
  QUERN_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  Expect(GgufGather(args, stream).empty(), "a gather is captured");
  QUERN_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  QUERN_CUDA_CHECK(cudaGraphInstantiate(&launched, graph, 0));
  QUERN_CUDA_CHECK(cudaMemcpy(ids.As(), after.data(), 12, cudaMemcpyHostToDevice));
  QUERN_CUDA_CHECK(cudaGraphLaunch(launched, stream));
  QUERN_CUDA_CHECK(cudaStreamSynchronize(stream));
  GgufMatrix host = table.matrix;
  host.data = table.packed.data();
  ExpectGathered(args, host, after, out.Read<float>(0, 3 * 64), "gather in a graph");
  QUERN_CUDA_CHECK(cudaGraphExecDestroy(launched));
  QUERN_CUDA_CHECK(cudaGraphDestroy(graph));
  QUERN_CUDA_CHECK(cudaStreamDestroy(stream));
}

void GatherRefusals(std::mt19937_64& random) {
  const GgufLayer table(random, WeightType::kQ4_K, 64, 1);
  const DeviceMemory ids(4 * 4);
  const DeviceMemory out(256 * 4);
  const GgufGatherArgs good{table.matrix, ids.As<int32_t>(), 0, 1, out.As<float>(), 256};
  Expect(GgufGather(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(GgufGather(bad, nullptr), part);
  };
  refused([](auto& a) { a.table.cols = 32; }, "GGUF gather: a Q4_K matrix of 32 columns");
  refused([](auto& a) { a.table.type = WeightType::kQ5_K; }, "Q5_K have no layout");
  refused([](auto& a) { a.first = -1; }, "first is -1");
  refused([](auto& a) { a.table.rows = 0; }, "from 1 to");
  refused([](auto& a) { a.table.data += 8; }, "table.data is misaligned");
  refused([](auto& a) { a.table.cols = 1 << 21; }, "table.cols is 2097152; it must be from 1 to");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.out_stride = 255; }, "out_stride is 255; it must be a multiple of 4");
  refused([](auto& a) { a.out_stride = 252; }, "at least 256");
  refused([](auto& a) { a.ids = nullptr; }, "ids is null");
  refused([](auto& a) { a.out += 2; }, "out is misaligned");
}

}  // namespace

void CheckGgufGather(std::mt19937_64& random, bool small) {
  GatherRefusals(random);
  GatherInAGraph(random);
  for (WeightType type : kGgufTypes) {
    const bool is_k = FindWeightTypeInfo(type)->block_elements == 256;
    GatherCase(random, type, 1, 1, 1, 1);
    GatherCase(random, type, 32, is_k ? 2 : 9, 100, 1);  // every row of a tile
    GatherCase(random, type, 70, is_k ? 3 : 20, 17, std::sqrt(640.0f));
    GatherCase(random, type, 37, 2, 17, 2, 1000);          // a part of a vocabulary
    GatherCase(random, type, 33, is_k ? 9 : 67, 5, 0.3f);  // more columns than a thread block's
    if (!small) GatherCase(random, type, 32000, is_k ? 10 : 80, 1000, std::sqrt(2560.0f));
  }
}

}  // namespace quern::kernels::testing
