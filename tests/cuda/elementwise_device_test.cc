// The elementwise kernels against their references: fresh random inputs, ragged shapes, poisoned
// outputs. Norms, gates and what quantises are in files of their own.

#include <cmath>
#include <limits>

#include "quern/kernels/embedding_gather.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckNorms(std::mt19937_64& random, bool small);         // elementwise_norm_checks.cc
void CheckGates(std::mt19937_64& random, bool small);         // elementwise_gate_checks.cc
void CheckQuantizeRows(std::mt19937_64& random, bool small);  // elementwise_quantize_checks.cc

namespace {

constexpr ActivationType kTypes[] = {ActivationType::kF16, ActivationType::kBF16};

// One product in float32: equal to the reference bit for bit, NaN where an id is out of range.
void GatherCase(std::mt19937_64& random, ActivationType type, int64_t vocab, int64_t hidden,
                int64_t tokens, float scale, int32_t first = 0) {
  const std::string what = std::string("gather ") + Name(type) + " " + std::to_string(vocab) + "x" +
                           std::to_string(hidden) + " tokens " + std::to_string(tokens);
  const auto bits = RoundAll(type, RandomNormal(random, vocab * hidden, 1));
  const auto table = WidenAll(type, bits);
  const int64_t table_stride = hidden + 4;
  auto spread = Spread(bits, hidden, table_stride);
  spread.resize(
      static_cast<size_t>((vocab - 1) * table_stride + hidden));  // ends with its last row
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  const int32_t wrong_ids[] = {-1, static_cast<int32_t>(vocab), std::numeric_limits<int32_t>::min(),
                               std::numeric_limits<int32_t>::max()};
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = i % 3 == 2 ? wrong_ids[i / 3 % 4]
                        : first + static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  }
  const DeviceMemory device_table(spread);
  const DeviceMemory device_ids(ids);
  const int64_t out_stride = hidden + 8;
  DeviceMemory out(static_cast<size_t>((tokens + 1) * out_stride) * 4);
  out.Fill(0xff);
  EmbeddingGatherArgs args{
      type,  device_table.As(), table_stride, vocab, hidden, device_ids.As<int32_t>(), tokens,
      scale, out.As<float>(),   out_stride};
  if (first > 0) {  // a part of a vocabulary
    args.first = first;
    args.absent = 0;
  }
  const std::string wrong = EmbeddingGather(args, nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto memory = out.Read<float>(0, out.bytes() / 4);
  ExpectNothingOutside(memory, tokens, hidden, out_stride, what);
  const auto got = Gathered(memory, tokens, hidden, out_stride);
  std::vector<float> expected(static_cast<size_t>(hidden));
  bool equal = true;
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t at = int64_t{ids[static_cast<size_t>(t)]} - first;
    if (first > 0 && (at < 0 || at >= vocab)) {
      std::fill(expected.begin(), expected.end(), 0.0f);
    } else {
      ref::EmbeddingGather(table.data(), vocab, hidden, static_cast<int32_t>(at), scale,
                           expected.data());
    }
    for (int64_t i = 0; i < hidden; ++i) {
      const float value = got[static_cast<size_t>(t * hidden + i)];
      const float right = expected[static_cast<size_t>(i)];
      // The kernel's own NaN, not the poison.
      uint32_t value_bits;
      std::memcpy(&value_bits, &value, 4);
      equal = equal && (std::isnan(right) ? value_bits == 0x7fffffffu : value == right);
    }
  }
  Expect(equal, what + ": differs from the reference");
}

void Gathers(std::mt19937_64& random, bool small) {
  for (ActivationType type : kTypes) {
    GatherCase(random, type, 1, 4, 1, 1);
    GatherCase(random, type, 37, 132, 13, std::sqrt(132.0f));
    GatherCase(random, type, 5, 5124, 4, std::sqrt(5124.0f));
    GatherCase(random, type, 37, 132, 13, 2, 1000);
    if (!small) GatherCase(random, type, 32000, 4096, 1000, 1);
  }
  const DeviceMemory table(64 * 2);
  const DeviceMemory ids(4 * 4);
  const DeviceMemory out(64 * 4);
  const EmbeddingGatherArgs good{
      ActivationType::kF16, table.As(), 16, 4, 16, ids.As<int32_t>(), 0, 1, out.As<float>(), 16};
  Expect(EmbeddingGather(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(EmbeddingGather(bad, nullptr), part);
  };
  refused([](auto& a) { a.hidden = 18; }, "hidden is 18; it must be a multiple of 4");
  refused([](auto& a) { a.table_stride = 12; }, "table_stride is 12");
  refused([](auto& a) { a.out_stride = 18; }, "out_stride is 18");
  refused([](auto& a) { a.first = -1; }, "first is -1");
  refused([](auto& a) { a.vocab = 0; }, "vocab is 0");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.ids = nullptr; }, "ids is null");
  refused([](auto& a) { a.table = static_cast<const uint16_t*>(a.table) + 1; }, "table is misal");
  refused([](auto& a) { a.out += 2; }, "out is misaligned");
}

void Run(std::mt19937_64& random, bool small) {
  Gathers(random, small);
  CheckGates(random, small);
  CheckNorms(random, small);
  CheckQuantizeRows(random, small);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::Run);
}
