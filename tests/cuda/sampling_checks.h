#pragma once

#include "quern/kernels/sample_tokens.h"
#include "tests/cuda/sampling_kernels.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

// u of a row's draw, by the device function that is tested against known answers.
inline std::vector<double> Uniforms(const std::vector<SampleRow>& rows, uint32_t draw) {
  std::vector<double> all;
  for (size_t begin = 0; begin < rows.size(); begin += 32) {
    std::vector<uint4> counters;
    std::vector<uint2> keys;
    for (size_t i = begin; i < std::min(rows.size(), begin + 32); ++i) {
      counters.push_back({static_cast<uint32_t>(rows[i].position),
                          static_cast<uint32_t>(rows[i].position >> 32), draw, 0});
      keys.push_back(
          {static_cast<uint32_t>(rows[i].seed), static_cast<uint32_t>(rows[i].seed >> 32)});
    }
    const DeviceMemory device_counters(counters);
    const DeviceMemory device_keys(keys);
    const DeviceMemory out(sizeof(uint4) * keys.size());
    const DeviceMemory uniforms(sizeof(uint64_t) * keys.size());
    QUERN_CUDA_CHECK(RunPhilox(device_counters.As<uint4>(), device_keys.As<uint2>(),
                               static_cast<int>(keys.size()), out.As<uint4>(),
                               uniforms.As<unsigned long long>()));
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    for (uint64_t bits : uniforms.Read<uint64_t>(0, keys.size())) {
      all.push_back(static_cast<double>(bits >> 11) * 0x1p-53);
    }
  }
  return all;
}

// Rows of logits and how their tokens are picked.
struct Batch {
  int64_t vocab;
  std::vector<float> logits;  // [rows, vocab]
  std::vector<SampleRow> rows;

  SampleTokensArgs Needs() const {
    SampleTokensArgs args{};
    for (const SampleRow& row : rows) {
      args.any_draw = args.any_draw || (row.temperature >= 1e-5f && row.top_k != 1);
      args.any_top_k = args.any_top_k || row.top_k > 1;
      args.any_top_p = args.any_top_p || row.top_p < 1;
    }
    return args;
  }
};

inline std::vector<int32_t> Sample(const Batch& batch, int thread_blocks, const std::string& what) {
  const int64_t stride = (batch.vocab + 3) / 4 * 4 + 4;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const DeviceMemory logits(Spread(batch.logits, batch.vocab, stride));
  const DeviceMemory params(batch.rows);
  DeviceMemory ids((batch.rows.size() + 8) * 4);
  const size_t bytes = SampleWorkspaceBytes(rows, batch.vocab);
  DeviceMemory workspace(bytes + 64);
  ids.Fill(0xff);
  workspace.Fill(0xff);
  SampleTokensArgs args = batch.Needs();
  args.logits = logits.As<float>();
  args.logits_stride = stride;
  args.vocab = batch.vocab;
  args.rows = rows;
  args.params = params.As<SampleRow>();
  args.ids = ids.As<int32_t>();
  args.workspace = workspace.As();
  args.workspace_size = bytes;
  args.thread_blocks = thread_blocks;
  const std::string wrong = SampleTokens(args, nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  auto got = ids.Read<int32_t>(0, batch.rows.size() + 8);
  ExpectNothingOutside(got, 1, rows, 1 << 30, what);
  ExpectNothingOutside(workspace.Read<uint8_t>(bytes, 64), 0, 1, 64, what + " workspace");
  got.resize(batch.rows.size());
  return got;
}

// The weights err by 2^-17 at most (roundings of x, which is below 32, of the rank and of its
// product, each 2^-24 of x; expf's 2 units of 2^-23), and by a unit of 2^-44 for each token; so do
// sums of them.
inline constexpr double kWeightError = 0x1p-17;

}  // namespace quern::kernels::testing
