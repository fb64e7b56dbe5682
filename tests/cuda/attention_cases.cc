#include "tests/cuda/attention_cases.h"

#include "quern/kernels/cpu_kernels.h"
#include "tests/cuda/attention_batch.h"

namespace quern::kernels::testing {
namespace {

using AttentionFnOf = std::string (*)(const DeviceAttentionArgs&, CUstream_st*);

// The batch on the device.
struct DeviceBatch {
  DeviceKvCopy kv;
  DeviceMemory begins, contexts, tables, q, sinks, out, workspace;
  DeviceAttentionArgs args;

  explicit DeviceBatch(const AttentionBatch& batch)
      : kv(batch.kv),
        begins(batch.begins),
        contexts(batch.contexts),
        tables(batch.tables),
        q(Upload(batch.q)),
        sinks(Upload(batch.sinks)),
        out(static_cast<size_t>((batch.queries + 1) * batch.q_stride) * 2),
        workspace(16),
        args{batch.c.type,
             q.As(),
             batch.q_stride,
             out.As(),
             batch.q_stride,
             batch.c.kv_heads * batch.c.group,
             kv.kv,
             begins.As<int32_t>(),
             contexts.As<int32_t>(),
             tables.As<int32_t>(),
             batch.table_stride,
             static_cast<int64_t>(batch.c.sequences.size()),
             batch.max_queries,
             batch.max_context,
             batch.scale,
             batch.c.softcap,
             batch.c.window,
             batch.sinks.empty() ? nullptr : sinks.As<float>()} {}

  std::vector<uint16_t> Run(AttentionFnOf run, const std::string& text) {
    args.workspace_size = DecodeAttentionWorkspaceBytes(args);
    const DeviceMemory memory(args.workspace_size + 16);
    args.workspace = memory.As();
    out.Fill(0xff);  // NaN
    const std::string wrong = run(args, nullptr);
    Expect(wrong.empty(), text + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    return out.Read<uint16_t>(0, out.bytes() / 2);
  }
};

// Of an implementation: half a unit in the last place of what it rounds, relative.
struct Precision {
  double weights;  // of the softmax
  double values;   // V after its scales; 0 where it is stored as it is multiplied
  double out;
  double least;  // half the smallest step of these, or what else a small weight errs by
};

Precision DevicePrecision(const AttentionCase& c) {
  const double u = c.type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
  return {u, HasGroupScales(c.format) ? u : 0, u,
          c.type == ActivationType::kF16 ? 0x1p-25 : 0x1p-134};
}
// The CPU's exp ends at e^-87, which is below 2^-125.
constexpr Precision kCpuPrecision{0x1p-24, 0x1p-24, 0x1p-24, 0x1p-125};

double ScaleOf(const AttentionCase& c) { return c.sharpness / std::sqrt(c.head_dim); }

// A bound on |out - exact|, with W the softmax's mean of |v|.
// Scores: each of the additions of head_dim products (one per 16 elements, one per group of 32,
// and 2) errs by 2^-23 (tensor cores may truncate) of the sum of |q k| at most, each of six
// operations after it (scales, the tanh of a cap and its factors, the difference to the maximum) by
// 2^-22 of the largest score; exp2's 2^-22 is one more. A weight's relative error is the score's
// absolute one, and counts twice: in the sum of values and in that of weights.
// Weights and V are rounded, relative to themselves or (below the type's range) by `least`.
// Sums over tokens: one addition of mma.sync for 16, one rescaling for 16, at most 64 + 4 + 8 of
// partial sums: 2^-23 of W each, and so for the sum of weights.
double Bound(const AttentionCase& c, const Precision& p, const AttentionTruth& truth,
             double context, double exact, double mean) {
  const double score = (c.head_dim * 3.0 / 32 + 2) * 0x1p-23 *
                           static_cast<double>(truth.largest_product) * ScaleOf(c) +
                       7 * 0x1p-22 * (static_cast<double>(truth.largest_score) + 1);
  const double sums = (context / 8 + 76) * 0x1p-23;
  const double least = p.least * (context * static_cast<double>(truth.largest_value) + 2);
  return mean * (p.weights + p.values + 2 * score + 2 * sums) + p.out * std::fabs(exact) + least;
}

// Compares [query][head][head_dim] with the truth, element by element and query by query.
template <typename GotFn>
void Compare(const AttentionBatch& batch, const std::string& text, const Precision& p,
             const AttentionTruth& truth, GotFn got) {
  const AttentionCase& c = batch.c;
  const auto width = static_cast<size_t>(c.kv_heads * c.group * c.head_dim);
  double worst = 0;
  double worst_norm = 0;
  for (size_t query = 0; query < static_cast<size_t>(batch.queries); ++query) {
    double error2 = 0;
    double exact2 = 0;
    for (size_t i = query * width; i < (query + 1) * width; ++i) {
      const auto exact = static_cast<double>(truth.out[i]);
      const double error = std::fabs(got(i) - exact);
      const double ratio = error / Bound(c, p, truth, static_cast<double>(batch.max_context), exact,
                                         static_cast<double>(truth.magnitude[i]));
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
      error2 += error * error;
      exact2 += exact * exact;
    }
    worst_norm = std::max(worst_norm, std::sqrt(error2 / exact2));
  }
  char numbers[100];
  std::snprintf(numbers, sizeof(numbers), ": error %.2f of the bound, relative %.2e", worst,
                worst_norm);
  Expect(worst <= 1, text + numbers);
  // The roundings of weights, V and outputs are independent: a third of u^2 each, in the mean, of
  // what the weights' squares make of V, which is what the outputs are of random V: u together, and
  // half of it for chance. One token too many or too few of n is 1 / sqrt(n) of it.
  if (p.out > 0x1p-20) Expect(worst_norm <= 1.5 * p.out, text + numbers);
}

std::vector<uint16_t> CheckDevice(const AttentionBatch& batch, const AttentionTruth& truth,
                                  DeviceBatch& device, AttentionFnOf run, const char* name) {
  const AttentionCase& c = batch.c;
  const std::string text = std::string(name) + " " + c.Text();
  const std::vector<uint16_t> out = device.Run(run, text);
  const int64_t width = int64_t{c.kv_heads} * c.group * c.head_dim;
  Compare(batch, text, DevicePrecision(c), truth, [&](size_t i) {
    const auto row = static_cast<int64_t>(i) / width;
    const auto at = static_cast<size_t>(row * batch.q_stride + static_cast<int64_t>(i) % width);
    return static_cast<double>(Widen(c.type, out[at]));
  });
  bool untouched = true;
  for (size_t i = 0; i < out.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / batch.q_stride;
    const bool inside = row < batch.queries && static_cast<int64_t>(i) % batch.q_stride < width;
    untouched &= inside || out[i] == 0xffff;
  }
  Expect(untouched, text + ": wrote outside out");
  Expect(device.Run(run, text) == out, text + ": two runs differ");
  return out;
}

void CheckCpu(const AttentionBatch& batch, const AttentionTruth& truth) {
  const AttentionCase& c = batch.c;
  if (c.sinks) return;  // which the CPU's kernels have not
  const char* error = nullptr;
  const CpuKernels* kernels = SelectCpuKernels(&error);
  if (kernels == nullptr) Die(error);
  std::vector<float> scratch(static_cast<size_t>(AttentionScratchFloats(c.head_dim)));
  std::vector<float> out;
  truth.Run(
      batch, truth.values(), nullptr,
      [&](const AttentionArgs& args, const AttentionQuery* queries, int count,
          const float* /*sinks*/) { kernels->attention(args, queries, count, scratch.data()); },
      &out);
  Compare(batch, "CPU " + c.Text(), kCpuPrecision, truth,
          [&](size_t i) { return static_cast<double>(out[i]); });
}

// A sequence alone gets the same bits as in the batch.
void CheckAlone(const AttentionBatch& batch, DeviceBatch& device, AttentionFnOf run,
                const char* name, const std::vector<uint16_t>& out) {
  if (batch.c.sequences.size() < 2) return;
  for (size_t s = 0; s < batch.c.sequences.size(); ++s) {
    const auto& sequence = batch.c.sequences[s];
    if (sequence.queries == 0) continue;
    DeviceAttentionArgs all = device.args;
    device.args.query_begins += s;
    device.args.contexts += s;
    device.args.tables += static_cast<int64_t>(s) * batch.table_stride;
    device.args.sequences = 1;
    device.args.max_queries = sequence.queries;
    device.args.max_context = sequence.context;
    const std::vector<uint16_t> alone = device.Run(run, batch.c.Text());
    const auto first = static_cast<size_t>(batch.begins[s] * batch.q_stride);
    const auto last = static_cast<size_t>(batch.begins[s + 1] * batch.q_stride);
    bool same = true;
    for (size_t i = first; i < last; ++i) same &= alone[i] == out[i];
    Expect(same, std::string(name) + " " + batch.c.Text() + ": sequence " + std::to_string(s) +
                     " alone has other bits");
    device.args = all;
  }
}

void RunCase(std::mt19937_64& random, const AttentionCase& c, bool decode, bool prefill) {
  AttentionBatch batch(random, c);
  const AttentionTruth truth(batch);
  DeviceBatch device(batch);
  CheckCpu(batch, truth);
  if (decode) {
    const auto out = CheckDevice(batch, truth, device, DecodeAttention, "decode");
    CheckAlone(batch, device, DecodeAttention, "decode", out);
  }
  if (prefill) {
    const auto out = CheckDevice(batch, truth, device, PrefillAttention, "prefill");
    CheckAlone(batch, device, PrefillAttention, "prefill", out);
  }
}

void TestDecode(std::mt19937_64& random) {
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (DeviceKvFormat format : kKvFormats) {
      // Contexts of one token, within a step, of several splits.
      RunCase(random, {type, format, 64, 16, 1, 3, {{1, 1}, {1, 300}, {0, 5}, {1, 17}}}, true,
              false);
      RunCase(random, {type, format, 128, 32, 2, 4, {{1, 33}, {1, 257}}, 0, 0, true}, true, false);
      RunCase(random, {type, format, 256, 64, 1, 4, {{1, 70}, {1, 529}}, 100, 5}, true, false);
      // A window of several splits that begins inside a step; more rows than one mma.sync has.
      RunCase(random, {type, format, 64, 32, 2, 1, {{2, 701}, {1, 90}}, 270, 0, true}, true, false);
      RunCase(random, {type, format, 128, 16, 1, 8, {{4, 40}, {1, 3}}, 0, 0, false, 4}, true,
              false);
    }
  }
}

// Longer splits than the shortest, beside a sequence of the shortest ones.
void TestLongContext(std::mt19937_64& random) {
  RunCase(random,
          {ActivationType::kF16, DeviceKvFormat::kInt4, 64, 64, 1, 2, {{1, 16500}, {1, 600}}}, true,
          false);
}

void TestPrefill(std::mt19937_64& random) {
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (DeviceKvFormat format : kKvFormats) {
      // A whole prompt, a chunk of a longer one, a single token, nothing.
      RunCase(random, {type, format, 64, 16, 1, 3, {{37, 37}, {30, 100}, {0, 9}, {1, 50}}}, false,
              true);
      RunCase(random, {type, format, 128, 32, 2, 2, {{41, 73}, {5, 5}}, 20, 0, true}, false, true);
      RunCase(random, {type, format, 256, 64, 1, 4, {{18, 50}, {3, 130}}, 0, 5}, false, true);
    }
  }
}

// The first element of a row becomes NaN, or the scale of its first group.
void Spoil(HostKvHalf& half, int64_t row) {
  if (HasGroupScales(half.format)) {
    half.Scales(row)[0] = 0x7e00;
  } else if (half.format == DeviceKvFormat::kE4m3) {
    half.Codes(row)[0] = 0xff;
  } else {
    const uint16_t nan = Round(half.type, NAN);
    std::memcpy(half.Codes(row), &nan, 2);
  }
}

// NaN in the cache says so: where it is in V the elements that it is of, in K all.
void TestNan(std::mt19937_64& random) {
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (DeviceKvFormat format : kKvFormats) {
      for (bool in_k : {false, true}) {
        const AttentionCase c{type, format, 64, 16, 1, 2, {{1, 20}}};
        AttentionBatch batch(random, c);
        Spoil(in_k ? batch.kv.k : batch.kv.v, batch.Row(0, 7, 0));
        const auto out = DeviceBatch(batch).Run(DecodeAttention, c.Text());
        const int nans = in_k ? 64 : HasGroupScales(format) ? kKvGroup : 1;
        bool good = true;
        for (int i = 0; i < 128; ++i) {
          good &= std::isnan(Widen(type, out[static_cast<size_t>(i)])) == (i % 64 < nans);
        }
        Expect(good, c.Text() + (in_k ? ": NaN in K" : ": NaN in V"));
      }
    }
  }
}

void BadArguments() {
  const DeviceMemory memory(1 << 16);
  const DeviceKv kv{DeviceKvFormat::k16Bit,
                    ActivationType::kF16,
                    memory.As(),
                    memory.As(),
                    nullptr,
                    nullptr,
                    nullptr,
                    nullptr,
                    64,
                    16,
                    2,
                    64};
  const DeviceAttentionArgs good{ActivationType::kF16,
                                 memory.As(),
                                 256,
                                 memory.As(),
                                 256,
                                 4,
                                 kv,
                                 memory.As<int32_t>(),
                                 memory.As<int32_t>(),
                                 memory.As<int32_t>(),
                                 64,
                                 1,
                                 1,
                                 1024,
                                 0.125f,
                                 0,
                                 0,
                                 nullptr,
                                 memory.As(),
                                 1 << 16};
  const auto refused = [&good](const char* part, auto spoil) {
    DeviceAttentionArgs bad = good;
    spoil(bad);
    const std::string wrong = DecodeAttention(bad, nullptr);
    Expect(wrong.find(part) != std::string::npos,
           std::string("expected an error about \"") + part + "\", got \"" + wrong + "\"");
  };
  using Args = DeviceAttentionArgs;
  refused("head_dim is 96", [](Args& a) { a.kv.head_dim = 96; });
  refused("kv.type", [](Args& a) { a.type = ActivationType::kBF16; });
  refused("q_heads is 3", [](Args& a) { a.q_heads = 3; });
  refused("sequences is negative", [](Args& a) { a.sequences = -1; });
  refused("max_context is 0", [](Args& a) { a.max_context = 0; });
  refused("max_queries is 0", [](Args& a) { a.max_queries = 0; });
  refused("scale", [](Args& a) { a.scale = NAN; });
  refused("softcap", [](Args& a) { a.softcap = -1; });
  refused("window", [](Args& a) { a.window = -1; });
  refused("q and out", [](Args& a) { a.out = nullptr; });
  refused("q_stride is 248", [](Args& a) { a.q_stride = 248; });
  refused("out_stride is 250", [](Args& a) { a.out_stride = 250; });
  refused("contexts", [](Args& a) { a.contexts = nullptr; });
  refused("table_stride is 63", [](Args& a) { a.table_stride = 63; });
  refused("the workspace has 100", [](Args& a) { a.workspace_size = 100; });
  refused("too many", [](Args& a) { a.sequences = int64_t{1} << 31; });
  DeviceAttentionArgs none = good;
  none.sequences = 0;
  Expect(DecodeAttention(none, nullptr).empty() && PrefillAttention(none, nullptr).empty(),
         "no sequences are allowed");
  none.kv.kv_heads = 0;
  Expect(!PrefillAttention(none, nullptr).empty(), "prefill checks its arguments, too");
}

}  // namespace

void TestAttention(std::mt19937_64& random) {
  BadArguments();
  TestDecode(random);
  TestNan(random);
  TestLongContext(random);
  TestPrefill(random);
}

}  // namespace quern::kernels::testing
