// Sampling against its reference: each draw must be the token in which u of the exact distribution
// falls, up to a bound. Fresh random logits, ragged vocabularies, ties, cuts alone and together.

#include <cmath>
#include <numeric>

#include "quern/kernels/sample_tokens.h"
#include "tests/cuda/sampling_checks.h"

namespace quern::kernels::testing {

void CheckVerification(std::mt19937_64& random, bool small);  // sampling_verify_checks.cc

namespace {

// Known answers of the authors' Random123 library, file kat_vectors, as the CPU's test has them.
void PhiloxGivesTheKnownAnswers() {
  const std::vector<uint4> counters = {
      {0, 0, 0, 0}, {~0u, ~0u, ~0u, ~0u}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
  const std::vector<uint2> keys = {{0, 0}, {~0u, ~0u}, {0xa4093822, 0x299f31d0}};
  const uint32_t answers[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                  {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                  {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
  const DeviceMemory device_counters(counters);
  const DeviceMemory device_keys(keys);
  const DeviceMemory out(sizeof(uint4) * 3);
  const DeviceMemory uniforms(sizeof(uint64_t) * 3);
  QUERN_CUDA_CHECK(RunPhilox(device_counters.As<uint4>(), device_keys.As<uint2>(), 3,
                             out.As<uint4>(), uniforms.As<unsigned long long>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto got = out.Read<uint32_t>(0, 12);
  Expect(std::memcmp(got.data(), answers, sizeof(answers)) == 0, "Philox's known answers");
  // Counter 0 and key 0 are seed 0, position 0, draw 0.
  Expect(uniforms.Read<uint64_t>(0, 1)[0] == (0xe169c58d6627e8d5u & ~uint64_t{0x7ff}),
         "the uniform is of the answer's first two words");
}

void ExpectDraw(const Batch& batch, size_t row, double u, int32_t id, const std::string& what) {
  std::vector<double> weights(static_cast<size_t>(batch.vocab));
  const SampleRow& params = batch.rows[row];
  const double doubtful =
      ref::SampleWeights(&batch.logits[row * weights.size()], batch.vocab, params, weights.data());
  const std::string where =
      what + " row " + std::to_string(row) + " temperature " + std::to_string(params.temperature) +
      " top_k " + std::to_string(params.top_k) + " top_p " + std::to_string(params.top_p) +
      " min_p " + std::to_string(params.min_p) + ": got " + std::to_string(id);
  if (doubtful < 0) {
    Expect(id == -1, where + ", where no token can be picked");
    return;
  }
  if (id < 0 || id >= batch.vocab) {
    Expect(false, where);
    return;
  }
  double total = 0;
  double before = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (i < static_cast<size_t>(id)) before += weights[i];
    total += weights[i];
  }
  const double own = weights[static_cast<size_t>(id)];
  if (own == 0) {
    Expect(doubtful > 0, where + ", which is cut");
    return;
  }
  const double bound = kWeightError * total + static_cast<double>(batch.vocab) * 0x1p-44 + doubtful;
  Expect(u * total >= before - bound && u * total <= before + own + bound,
         where + ", which begins at " + std::to_string(before / total) + " and takes " +
             std::to_string(own / total) + "; u is " + std::to_string(u));
}

void RunBatch(const Batch& batch, const std::string& what) {
  const std::vector<int32_t> ids = Sample(batch, 0, what);
  const std::vector<double> u = Uniforms(batch.rows, 0);
  for (size_t row = 0; row < ids.size(); ++row) ExpectDraw(batch, row, u[row], ids[row], what);
  Expect(Sample(batch, 3, what) == ids, what + ": other thread blocks, other tokens");
  // A row alone, with what it needs alone.
  const size_t row = ids.size() / 2;
  const auto vocab = static_cast<std::ptrdiff_t>(batch.vocab);
  const auto first = batch.logits.begin() + static_cast<std::ptrdiff_t>(row) * vocab;
  const Batch alone{batch.vocab, {first, first + vocab}, {batch.rows[row]}};
  Expect(Sample(alone, 0, what)[0] == ids[row], what + ": a row alone differs");
}

// Rows of all kinds of cuts.
Batch RandomBatch(std::mt19937_64& random, int64_t vocab, size_t rows, float deviation, bool ties) {
  Batch batch{vocab, RandomNormal(random, static_cast<int64_t>(rows) * vocab, deviation), {}};
  const size_t kinds = random();
  if (ties) {  // as logits of bfloat16 have
    for (float& logit : batch.logits) logit = std::round(logit * 2) / 2;
  }
  std::uniform_real_distribution<float> uniform(0, 1);
  for (size_t i = 0; i < rows; ++i) {
    const size_t row = kinds % 840 + i;
    SampleRow params{1, 1, 0, 0, random(), random()};
    if (row % 7 == 6) params.temperature = 0;
    if (row % 2 == 1) params.temperature = 0.2f + 1.5f * uniform(random);
    if (row % 3 == 1) {
      params.top_k = static_cast<int32_t>(1 + random() % static_cast<uint64_t>(vocab + 2));
    }
    if (row % 3 == 2) params.top_k = static_cast<int32_t>(1 + random() % 40);
    if (row / 2 % 2 == 1) params.top_p = row % 8 == 3 ? 1e-6f : uniform(random);
    if (row % 5 == 4) params.min_p = 0.2f * uniform(random);
    batch.rows.push_back(params);
  }
  return batch;
}

void SpecialRows(std::mt19937_64& random) {
  constexpr int64_t kVocab = 4200;  // three tiles
  Batch batch = RandomBatch(random, kVocab, 16, 3, false);
  const auto row = [&](size_t index) { return batch.logits.begin() + index * kVocab; };
  row(1)[kVocab - 1] = NAN;
  row(2)[0] = INFINITY;
  std::fill_n(row(3), kVocab, -INFINITY);
  std::fill_n(row(4), kVocab - 1, -INFINITY);  // only the last can be drawn
  std::fill_n(row(5), kVocab, 7.0f);           // all equal, cut by id
  batch.rows[5] = {1, 1, 0, 100, random(), 1};
  std::fill_n(row(6), kVocab, -3.0f);
  batch.rows[6] = {0.7f, 0.01f, 0, 0, random(), 2};
  row(7)[17] = row(7)[18] = row(7)[2090] = 1e30f;  // the lowest of the greatest
  batch.rows[7].temperature = 0;
  batch.rows[8] = {NAN, NAN, NAN, -5, 1, 2};
  batch.rows[9] = {1, -1, -1, -1, 3, 4};
  batch.rows[10] = {1, 2, 2, 1 << 30, 5, 6};
  // Weights whose lower words overflow when they are summed.
  std::fill_n(row(11), kVocab, -5.3f);
  row(11)[7] = 0;
  batch.rows[11] = {1, 0.5f, 0, 0, random(), 7};
  // Equals of which those of the first tile alone are kept, between others that are.
  for (size_t i = 12; i < 16; ++i) {
    for (int64_t id = 0; id < kVocab; ++id) row(i)[id] = id % 2 == 0 ? -1.0f : 1.0f;
    batch.rows[i] = {1, 1, 0, static_cast<int32_t>(kVocab / 2 + 500), random(), i};
  }
  RunBatch(batch, "special rows");
  const auto ids = Sample(batch, 0, "special rows");
  Expect(ids[1] == -1 && ids[2] == -1 && ids[3] == -1, "rows without a token to pick");
  Expect(ids[4] == kVocab - 1, "the only token that is not -infinity");
  Expect(ids[5] >= 0 && ids[5] < 100 && ids[6] >= 0 && ids[6] < kVocab / 100,
         "equals are cut by id");
  Expect(ids[7] == 17, "greedy takes the lowest id among equals");
}

// With the same logits and one seed many positions follow the distribution (chi-square).
void PositionsFollowTheDistribution(std::mt19937_64& random) {
  constexpr size_t kRows = 2000;
  const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 1.0f, 0.0f, 1.5f, -9.0f};
  Batch batch{7, {}, {}};
  const uint64_t seed = random();
  for (size_t i = 0; i < kRows; ++i) {
    batch.logits.insert(batch.logits.end(), logits.begin(), logits.end());
    batch.rows.push_back({0.8f, 1, 0, 6, seed, i});
  }
  std::vector<double> weights(7);
  ref::SampleWeights(logits.data(), 7, batch.rows[0], weights.data());
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int> counts(7);
  for (int32_t id : Sample(batch, 0, "positions")) {
    if (id >= 0 && id < 7) ++counts[static_cast<size_t>(id)];
  }
  double chi_square = 0;
  for (size_t i = 0; i < 6; ++i) {
    const double expected = weights[i] / total * kRows;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  // Five degrees of freedom; one run in a hundred million is beyond 46.
  Expect(chi_square < 46 && counts[6] == 0, "positions: chi-square " + std::to_string(chi_square));
}

void Refusals() {
  const DeviceMemory memory(1 << 20);
  auto* floats = memory.As<float>();
  SampleTokensArgs good{};
  good.logits = floats;
  good.logits_stride = good.vocab = 16;
  good.rows = 1;
  good.params = reinterpret_cast<const SampleRow*>(floats + 64);
  good.ids = memory.As<int32_t>() + 128;
  good.workspace = floats + 256;
  good.workspace_size = SampleWorkspaceBytes(1, 16);
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(SampleTokens(bad, nullptr), part);
  };
  refused([](auto& a) { a.vocab = 0; }, "vocab is 0; it must be from 1 to 1048576");
  refused([](auto& a) { a.rows = 70000; }, "rows is 70000");
  refused([](auto& a) { a.logits_stride = 18; }, "logits_stride is 18; it must be a multiple of 4");
  refused([](auto& a) { a.logits += 1; }, "logits is misaligned");
  refused([](auto& a) { a.params = nullptr; }, "params is null");
  refused([](auto& a) { a.workspace_size -= 1; }, "less than SampleWorkspaceBytes");
  refused([](auto& a) { a.thread_blocks = -1; }, "thread_blocks is negative");
  good.rows = 0;
  Expect(SampleTokens(good, nullptr).empty(), "no rows are nothing to do");
}

void Run(std::mt19937_64& random, bool small) {
  PhiloxGivesTheKnownAnswers();
  Refusals();
  SpecialRows(random);
  CheckVerification(random, small);
  if (!small) PositionsFollowTheDistribution(random);
  for (int64_t vocab : {1, 7, 2048, 2053}) {
    for (bool ties : {false, true}) {
      RunBatch(RandomBatch(random, vocab, 7, 2, ties), "vocab " + std::to_string(vocab));
    }
  }
  // Few of a large vocabulary's tokens have a weight, as with a model's logits.
  RunBatch(RandomBatch(random, 20001, 4, 5, random() % 2 == 0), "vocab 20001");
  RunBatch(RandomBatch(random, 262144, small ? 1 : 64, 8, false), "vocab 262144");
  RunBatch(RandomBatch(random, 128256, small ? 1 : 64, 8, true), "vocab 128256 with ties");
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::Run);
}
