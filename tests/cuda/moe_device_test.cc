// Routing, sorting and summing of a mixture of experts against their references: fresh random
// inputs, ragged shapes, poisoned outputs.

#include <cmath>
#include <limits>

#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {
namespace {

struct RouteCase {
  int64_t tokens, experts, top_k;
  RouterNorm norm;
  bool ties;   // logits of few values
  bool parts;  // logits in two parts, and tokens that only fill up

  std::string Text() const {
    return "route " + std::to_string(tokens) + " tokens " + std::to_string(top_k) + " of " +
           std::to_string(experts) + (norm == RouterNorm::kAllExperts ? " of all" : " of chosen") +
           (ties ? " ties" : "") + (parts ? " parts" : "");
  }
};

// One token's experts exactly, and its weights within a bound: relative errors of the exponent's
// rounding (|logit - top| 2^-24, and of the sum's terms, d e^-d < 1), of expf (2 units of 2^-23
// each, CUDA programming guide), of at most 32 additions, the quotient and the scale.
void ExpectRoute(const RouteCase& c, const float* logits, float scale, const int32_t* ids,
                 const float* weights) {
  std::vector<int32_t> right(static_cast<size_t>(c.top_k));
  std::vector<double> exact(static_cast<size_t>(c.top_k));
  ref::MoeRoute(logits, c.experts, c.top_k, c.norm, scale, right.data(), exact.data());
  bool same = true;
  double worst = 0;
  for (size_t i = 0; i < right.size(); ++i) {
    same = same && ids[i] == right[i];
    if (std::isnan(exact[i])) {
      if (!std::isnan(weights[i])) worst = INFINITY;
      continue;
    }
    const double below = std::min(double{logits[right[0]]} - logits[right[i]], 200.0);
    const double bound = exact[i] * (below + 1 + 8 + 32 + 2) * 0x1p-24 + 1e-37;
    const double error = std::fabs(weights[i] - exact[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error / bound);
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(same, c.Text() + ": other experts than the reference's");
  Expect(worst <= 1, c.Text() + text);
}

void RunRoute(std::mt19937_64& random, const RouteCase& c) {
  auto logits = RandomNormal(random, c.tokens * c.experts, 3);
  if (c.ties) {
    for (float& logit : logits) logit = std::round(logit / 2);  // -0 and 0 among them
  }
  const auto at = [&](int64_t token, int64_t expert) -> float& {
    return logits[static_cast<size_t>(token * c.experts + expert)];
  };
  if (c.tokens > 3 && c.experts > 2) {
    at(1, static_cast<int64_t>(random()) & 1) = NAN;
    for (int64_t e = 1; e < c.experts; ++e) at(2, e) = -INFINITY;
    at(3, c.experts - 1) = 500;  // the others' shares vanish
  }
  const int64_t stride = c.experts + 3;
  const float scale = 2.5f;
  const DeviceMemory device_logits(Spread(logits, c.experts, stride));
  const auto low = RandomNormal(random, c.tokens * c.experts, 0.01f);
  const DeviceMemory device_low(Spread(low, c.experts, stride));
  const int64_t used = c.parts ? static_cast<int64_t>(random() % (c.tokens + 1)) : c.tokens;
  const DeviceMemory device_used(std::vector<int32_t>{static_cast<int32_t>(used)});
  if (c.parts) {
    for (size_t i = 0; i < logits.size(); ++i) logits[i] += low[i];
  }
  const auto slots = static_cast<size_t>(c.tokens * c.top_k);
  DeviceMemory ids((slots + 8) * 4);
  DeviceMemory weights((slots + 8) * 4);
  std::vector<int32_t> got_ids;
  std::vector<float> got_weights;
  for (int run = 0; run < 2; ++run) {
    ids.Fill(0xff);
    weights.Fill(0xff);
    const std::string wrong = MoeRoute(
        {device_logits.As<float>(), stride, c.tokens, c.experts, c.top_k, c.norm, scale,
         ids.As<int32_t>(), weights.As<float>(), c.parts ? device_low.As<float>() : nullptr,
         c.parts ? device_used.As<int32_t>() : nullptr},
        nullptr);
    Expect(wrong.empty(), c.Text() + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const auto ids_now = ids.Read<int32_t>(0, slots + 8);
    const auto weights_now = weights.Read<float>(0, slots + 8);
    ExpectNothingOutside(ids_now, 1, static_cast<int64_t>(slots), 1 << 30, c.Text());
    ExpectNothingOutside(weights_now, 1, static_cast<int64_t>(slots), 1 << 30, c.Text());
    if (run == 1) {
      Expect(ids_now == got_ids && SameBits(weights_now, got_weights), c.Text() + ": runs differ");
    }
    got_ids = ids_now;
    got_weights = weights_now;
  }
  bool none = true;  // for tokens that fill up
  for (auto i = static_cast<size_t>(used * c.top_k); i < slots; ++i) {
    none = none && got_ids[i] == -1 && got_weights[i] == 0;
  }
  Expect(none, c.Text() + ": a token that is not used has an expert");
  for (int64_t t = 0; t < used; ++t) {
    ExpectRoute(c, &logits[static_cast<size_t>(t * c.experts)], scale, &got_ids[t * c.top_k],
                &got_weights[t * c.top_k]);
  }
}

void Routes(std::mt19937_64& random, bool small) {
  struct Shape {
    int64_t tokens, experts, top_k;
  };
  for (const Shape& s : {Shape{1, 1, 1}, Shape{9, 8, 2}, Shape{5, 32, 32}, Shape{6, 60, 4},
                         Shape{7, 128, 8}, Shape{5, 257, 3}, Shape{4, 512, 32}}) {
    for (RouterNorm norm : {RouterNorm::kAllExperts, RouterNorm::kChosenExperts}) {
      for (bool ties : {false, true}) {
        for (bool parts : {false, true}) {
          RunRoute(random, {s.tokens, s.experts, s.top_k, norm, ties, parts});
          if (!small) RunRoute(random, {3000, s.experts, s.top_k, norm, ties, parts});
        }
      }
    }
  }
  const DeviceMemory memory(4096);
  const MoeRouteArgs good{
      memory.As<float>(),      16, 0, 16, 4, RouterNorm::kAllExperts, 1, memory.As<int32_t>() + 256,
      memory.As<float>() + 512};
  Expect(MoeRoute(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(MoeRoute(bad, nullptr), part);
  };
  refused([](auto& a) { a.experts = 513; }, "experts is 513; it must be from 1 to 512");
  refused([](auto& a) { a.experts = 3; }, "top_k is 4; it must be from 1 to 3");
  refused([](auto& a) { a.top_k = 0; }, "top_k is 0");
  refused([](auto& a) { a.logits_stride = 15; }, "logits_stride is 15");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.weights = nullptr; }, "weights is null");
  const auto* odd = memory.As<uint8_t>() + 2;
  refused([&](auto& a) { a.low_logits = reinterpret_cast<const float*>(odd); },
          "low_logits is misaligned");
  refused([&](auto& a) { a.used_tokens = reinterpret_cast<const int32_t*>(odd); },
          "used_tokens is misaligned");
}

enum class Spreading { kUniform, kSkewed, kOneExpert, kSomeWithout };

void RunPermute(std::mt19937_64& random, int64_t pairs, int64_t experts, int64_t tile,
                Spreading spreading) {
  const std::string what = "permute " + std::to_string(pairs) + " pairs " +
                           std::to_string(experts) + " experts tile " + std::to_string(tile) +
                           " spreading " + std::to_string(static_cast<int>(spreading));
  std::vector<int32_t> ids(static_cast<size_t>(pairs));
  const auto one = static_cast<int32_t>(random() % static_cast<uint64_t>(experts));
  for (int32_t& id : ids) {
    const auto any = static_cast<int32_t>(random() % static_cast<uint64_t>(experts));
    id =
        spreading == Spreading::kOneExpert || (spreading == Spreading::kSkewed && random() % 4 != 0)
            ? one
            : any;
    if (spreading == Spreading::kSomeWithout && random() % 3 == 0) {
      id = random() % 2 == 0 ? -1 : static_cast<int32_t>(experts);
    }
  }
  const auto rows = static_cast<size_t>(MoePermuteRows(pairs, experts, tile));
  std::vector<int32_t> row_pairs(rows), pair_rows(ids.size()),
      offsets(static_cast<size_t>(experts + 1));
  ref::MoePermute({ids.data(), pairs, experts, tile, row_pairs.data(), pair_rows.data(),
                   offsets.data(), nullptr, 0});
  ids.resize(ids.size() + 1, 0);  // memory of no bytes is none
  const DeviceMemory device_ids(ids);
  const size_t bytes = MoePermuteWorkspaceBytes(pairs, experts);
  DeviceMemory got_rows((rows + 4) * 4), got_pairs((pair_rows.size() + 4) * 4),
      got_offsets((offsets.size() + 4) * 4), workspace(bytes + 16);
  const auto padded = [](std::vector<int32_t> values) {
    values.resize(values.size() + 4, -1);  // bytes 0xff: what nobody wrote
    return values;
  };
  for (int run = 0; run < 2; ++run) {
    got_rows.Fill(run == 0 ? 0xff : 0x11);
    got_pairs.Fill(0xff);
    got_offsets.Fill(0xff);
    workspace.Fill(0xff);
    const std::string wrong =
        MoePermute({device_ids.As<int32_t>(), pairs, experts, tile, got_rows.As<int32_t>(),
                    got_pairs.As<int32_t>(), got_offsets.As<int32_t>(), workspace.As(), bytes},
                   nullptr);
    Expect(wrong.empty(), what + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const size_t compared = run == 0 ? rows + 4 : rows;
    auto right_rows = padded(row_pairs);
    right_rows.resize(compared);
    Expect(got_rows.Read<int32_t>(0, compared) == right_rows, what + ": row_pairs");
    Expect(got_pairs.Read<int32_t>(0, pair_rows.size() + 4) == padded(pair_rows),
           what + ": pair_rows");
    Expect(got_offsets.Read<int32_t>(0, offsets.size() + 4) == padded(offsets), what + ": offsets");
  }
}

void Permutes(std::mt19937_64& random, bool small) {
  for (int64_t pairs : {0, 1, 37, 1024, 1025, 5003}) {
    for (int64_t experts : {1, 8, 128, 512}) {
      for (int64_t tile : {1, 16, 48}) {
        RunPermute(random, pairs, experts, tile, Spreading::kUniform);
      }
      RunPermute(random, pairs, experts, 64, Spreading::kSkewed);
      RunPermute(random, pairs, experts, 16, Spreading::kOneExpert);
      RunPermute(random, pairs, experts, 16, Spreading::kSomeWithout);
    }
  }
  if (!small) RunPermute(random, 200000, 256, 128, Spreading::kSkewed);
  const DeviceMemory memory(1 << 16);
  auto* ints = memory.As<int32_t>();
  const MoePermuteArgs good{ints,        2000,         8,   16, ints + 2048, ints + 6000,
                            ints + 9000, ints + 10000, 4096};
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(MoePermute(bad, nullptr), part);
  };
  refused([](auto& a) { a.experts = 0; }, "experts is 0");
  refused([](auto& a) { a.tile = 2000; }, "tile is 2000");
  refused([](auto& a) { a.pairs = -1; }, "pairs is -1");
  refused([](auto& a) { a.workspace = nullptr; }, "workspace is null");
  refused([](auto& a) { a.workspace_size = 60; }, "less than MoePermuteWorkspaceBytes");
  refused([](auto& a) { a.offsets = nullptr; }, "offsets is null");
}

void RunCombine(std::mt19937_64& random, ActivationType type, int64_t tokens, int64_t top_k,
                int64_t hidden) {
  const std::string what = std::string("combine ") + Name(type) + " " + std::to_string(tokens) +
                           " tokens " + std::to_string(top_k) + " of " + std::to_string(hidden);
  const int64_t rows = tokens * top_k + 5;
  const auto y_bits = RoundAll(type, RandomNormal(random, rows * hidden, 2));
  const auto y = WidenAll(type, y_bits);
  const auto weights = RandomNormal(random, tokens * top_k, 1);
  std::vector<int32_t> pair_rows(static_cast<size_t>(tokens * top_k));
  for (int32_t& row : pair_rows) {
    row = random() % 5 == 0 ? -1 : static_cast<int32_t>(random() % static_cast<uint64_t>(rows));
  }
  const int64_t y_stride = hidden + 8;
  const int64_t out_stride = hidden + 16;
  const DeviceMemory device_y(Spread(y_bits, hidden, y_stride));
  const DeviceMemory device_weights(weights);
  const DeviceMemory device_rows(pair_rows);
  DeviceMemory out(static_cast<size_t>((tokens + 1) * out_stride) * 2);
  std::vector<uint16_t> kept;
  for (int run = 0; run < 2; ++run) {
    out.Fill(0xff);
    const std::string wrong =
        MoeCombine({type, tokens, top_k, hidden, device_y.As(), y_stride, device_rows.As<int32_t>(),
                    device_weights.As<float>(), out.As(), out_stride},
                   nullptr);
    Expect(wrong.empty(), what + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const auto memory = out.Read<uint16_t>(0, out.bytes() / 2);
    ExpectNothingOutside(memory, tokens, hidden, out_stride, what);
    if (run == 1) Expect(memory == kept, what + ": two runs differ");
    kept = memory;
  }
  std::vector<double> exact(static_cast<size_t>(hidden)), total(static_cast<size_t>(hidden));
  std::vector<float> sizes(y.size()), shares(weights.size());
  for (size_t i = 0; i < y.size(); ++i) sizes[i] = std::fabs(y[i]);
  for (size_t i = 0; i < weights.size(); ++i) shares[i] = std::fabs(weights[i]);
  double worst = 0;
  const bool half = type == ActivationType::kF16;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto slot = static_cast<size_t>(t * top_k);
    ref::MoeCombine(y.data(), &pair_rows[slot], &weights[slot], top_k, hidden, exact.data());
    ref::MoeCombine(sizes.data(), &pair_rows[slot], &shares[slot], top_k, hidden, total.data());
    for (size_t i = 0; i < exact.size(); ++i) {
      // A rounding for each slot, of at most the sum of magnitudes; then that to the type.
      const double bound = static_cast<double>(top_k) * 0x1p-24 * total[i] +
                           (half ? 0x1p-11 : 0x1p-8) * std::fabs(exact[i]) * (1 + 0x1p-20) +
                           (half ? 0x1p-25 : 1e-40);
      const double got = Widen(type, kept[static_cast<size_t>(t * out_stride) + i]);
      const double error = std::fabs(got - exact[i]) / bound;
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(worst <= 1, what + text);
}

void Combines(std::mt19937_64& random, bool small) {
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    RunCombine(random, type, 1, 1, 8);
    RunCombine(random, type, 5, 8, 264);
    RunCombine(random, type, 3, 7, 2056);
    RunCombine(random, type, 2, 32, 512);
    if (!small) RunCombine(random, type, 1000, 8, 2880);
  }
  const DeviceMemory memory(4096);
  const MoeCombineArgs good{ActivationType::kF16,
                            0,
                            4,
                            16,
                            memory.As(),
                            16,
                            memory.As<int32_t>() + 64,
                            memory.As<float>() + 128,
                            memory.As<float>() + 256,
                            16};
  Expect(MoeCombine(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(MoeCombine(bad, nullptr), part);
  };
  refused([](auto& a) { a.hidden = 12; }, "hidden is 12; it must be a multiple of 8");
  refused([](auto& a) { a.top_k = 33; }, "top_k is 33");
  refused([](auto& a) { a.y_stride = 20; }, "y_stride is 20");
  refused([](auto& a) { a.out_stride = 8; }, "out_stride is 8");
  refused([](auto& a) { a.y = nullptr; }, "y is null");
  refused([](auto& a) { a.tokens = int64_t{1} << 30; }, "at most 2^34 elements");
}

void Run(std::mt19937_64& random, bool small) {
  Routes(random, small);
  Permutes(random, small);
  Combines(random, small);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::Run);
}
