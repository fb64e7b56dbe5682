#include <cmath>

#include "quern/kernels/add_rms_norm.h"
#include "quern/kernels/rms_norm.h"
#include "tests/cuda/row_codes_checks.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckNorms(std::mt19937_64& random, bool small);

namespace {

constexpr float kEpsilon = 1e-5f;

struct NormCase {
  ActivationType type;
  NormOutput output;
  int64_t tokens, hidden;
  bool x, x_weight, y;

  std::string Text() const {
    constexpr const char* kOutputs[] = {"", " int8", " e4m3"};
    return std::string("norm ") + Name(type) + kOutputs[static_cast<int>(output)] + " " +
           std::to_string(tokens) + "x" + std::to_string(hidden) + (x ? " x" : "") +
           (x_weight ? " x_weight" : "") + (y ? " y" : "");
  }
};

struct NormInputs {
  std::vector<float> residual;  // [tokens, hidden]
  std::vector<uint16_t> x;
  std::vector<float> x_weight, weight;
};

struct NormResult {
  std::vector<float> residual;
  std::vector<uint16_t> y;  // of NormOutput::kActivation
  std::vector<uint8_t> codes;
  std::vector<float> scale;
};

// The relative error of a norm: that of the sum of squares, `additions` of 2^-24 in a row, which
// are halved by the root; one rounding each of the mean's factor, the mean and epsilon, halved,
// too; rsqrtf's 2 units of 2^-23 (CUDA programming guide; the CPU's root and quotient err less);
// two products. The reference's own rounding is one more.
double NormError(double additions) { return (additions / 2 + 1.5 + 4 + 2 + 1) * 0x1p-24; }
// A thread adds at most 16 squares, then 5 times lanes and 5 times warps.
constexpr double kCudaAdditions = 26;

struct Judge {
  const NormCase& c;
  const NormInputs& in;
  std::string who;
  double error;  // of a norm, relative
  double worst = 0;

  void Note(double difference, double bound) {
    if (difference == 0 && bound == 0) return;
    const double ratio = difference / bound;
    worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
  }
  void End(const char* part) {
    char text[80];
    std::snprintf(text, sizeof(text), ": %s: error %.3f of the bound", part, worst);
    Expect(worst <= 1, c.Text() + " " + who + text);
    worst = 0;
  }

  void Residual(const std::vector<float>& got) {
    const auto x = WidenAll(c.type, in.x);
    std::vector<float> added(static_cast<size_t>(c.hidden));
    for (int64_t t = 0; t < c.tokens; ++t) {
      const auto row = static_cast<size_t>(t * c.hidden);
      std::copy_n(x.begin() + t * c.hidden, c.hidden, added.begin());
      if (c.x_weight) {
        ref::RmsNorm(&x[row], in.x_weight.data(), kEpsilon, c.hidden, added.data());
      }
      for (size_t i = 0; i < added.size(); ++i) {
        const double term = c.x ? added[i] : 0;
        const double exact = double{in.residual[row + i]} + term;
        Note(std::fabs(got[row + i] - exact),
             (c.x_weight ? error * std::fabs(term) * 1.01 : 0) + 0x1p-24 * std::fabs(exact));
      }
    }
    End("residual");
  }

  // y against the norm of the residual as it is now.
  void Output(const NormResult& got) {
    std::vector<float> exact(static_cast<size_t>(c.hidden));
    for (int64_t t = 0; t < c.tokens; ++t) {
      const auto row = static_cast<size_t>(t * c.hidden);
      ref::RmsNorm(&got.residual[row], in.weight.data(), kEpsilon, c.hidden, exact.data());
      if (c.output == NormOutput::kActivation) {
        const bool half = c.type == ActivationType::kF16;
        for (size_t i = 0; i < exact.size(); ++i) {
          Note(std::fabs(double{Widen(c.type, got.y[row + i])} - exact[i]),
               (error * 1.01 + (half ? 0x1p-11 : 0x1p-8)) * std::fabs(exact[i]) +
                   (half ? 0x1p-25 : 0));
        }
      } else {
        std::vector<double> errors;
        for (float value : exact) errors.push_back(error * 1.01 * std::fabs(double{value}));
        Note(RowCodesError(c.output, exact, errors, got.scale[static_cast<size_t>(t)],
                           &got.codes[row]),
             1);
      }
    }
    End("y");
  }
};

NormResult OnCpu(const NormCase& c, const NormInputs& in, const CpuKernels& cpu) {
  NormResult result{in.residual, {}, {}, {}};
  auto x = WidenAll(c.type, in.x);
  std::vector<float> y(x.size());
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto row = static_cast<size_t>(t * c.hidden);
    if (c.x_weight) cpu.rms_norm(&x[row], in.x_weight.data(), kEpsilon, c.hidden, &x[row]);
    if (c.x) cpu.add(&x[row], c.hidden, &result.residual[row]);
    cpu.rms_norm(&result.residual[row], in.weight.data(), kEpsilon, c.hidden, &y[row]);
  }
  result.y = RoundAll(c.type, y);
  return result;
}

int64_t OutputBytes(const NormCase& c) { return c.output == NormOutput::kActivation ? 2 : 1; }

NormResult OnDevice(const NormCase& c, const NormInputs& in) {
  const int64_t residual_stride = c.hidden + 4;
  const int64_t x_stride = c.hidden + 8;
  const int64_t y_stride = c.hidden + 12;
  const DeviceMemory residual(Spread(in.residual, c.hidden, residual_stride));
  const DeviceMemory x(Spread(in.x, c.hidden, x_stride));
  const DeviceMemory x_weight(in.x_weight);
  const DeviceMemory weight(in.weight);
  DeviceMemory y(static_cast<size_t>((c.tokens + 1) * y_stride * OutputBytes(c)));
  DeviceMemory scale(static_cast<size_t>(c.tokens + 1) * 4);
  y.Fill(0xff);
  scale.Fill(0xff);
  const bool quantised = c.y && c.output != NormOutput::kActivation;
  const std::string wrong =
      AddRmsNorm({c.type, c.tokens, c.hidden, kEpsilon, residual.As<float>(), residual_stride,
                  c.x ? x.As() : nullptr, x_stride, c.x_weight ? x_weight.As<float>() : nullptr,
                  c.y ? weight.As<float>() : nullptr, c.output, c.y ? y.As() : nullptr, y_stride,
                  quantised ? scale.As<float>() : nullptr},
                 nullptr);
  Expect(wrong.empty(), c.Text() + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  NormResult result;
  const auto r = residual.Read<float>(0, residual.bytes() / 4);
  ExpectNothingOutside(r, c.tokens, c.hidden, residual_stride, c.Text() + " residual");
  result.residual = Gathered(r, c.tokens, c.hidden, residual_stride);
  if (c.output == NormOutput::kActivation) {
    const auto memory = y.Read<uint16_t>(0, y.bytes() / 2);
    ExpectNothingOutside(memory, c.y ? c.tokens : 0, c.hidden, y_stride, c.Text() + " y");
    result.y = Gathered(memory, c.tokens, c.hidden, y_stride);
  } else {
    const auto memory = y.Read<uint8_t>(0, y.bytes());
    ExpectNothingOutside(memory, c.y ? c.tokens : 0, c.hidden, y_stride, c.Text() + " codes");
    result.codes = Gathered(memory, c.tokens, c.hidden, y_stride);
  }
  result.scale = scale.Read<float>(0, static_cast<size_t>(c.tokens + 1));
  ExpectNothingOutside(result.scale, quantised ? c.tokens : 0, 1, 1, c.Text() + " scale");
  return result;
}

NormInputs RandomInputs(std::mt19937_64& random, const NormCase& c) {
  const int64_t count = c.tokens * c.hidden;
  NormInputs in{RandomNormal(random, count, 3), RoundAll(c.type, RandomNormal(random, count, 1)),
                RandomNormal(random, c.hidden, 1), RandomNormal(random, c.hidden, 1)};
  if (c.tokens > 2) {  // a token of zeros
    std::fill_n(in.residual.begin() + c.hidden, c.hidden, 0.0f);
    std::fill_n(in.x.begin() + c.hidden, c.hidden, uint16_t{0});
  }
  return in;
}

void RunCase(std::mt19937_64& random, const NormCase& c) {
  const NormInputs in = RandomInputs(random, c);
  const auto judge = [&](const std::string& who, double additions, const NormResult& result) {
    Judge judge{c, in, who, NormError(additions)};
    judge.Residual(result.residual);
    if (c.y) judge.Output(result);
  };
  if (c.output == NormOutput::kActivation) {
    for (const CpuKernels* cpu : AllCpuKernels()) {
      judge(cpu->name, static_cast<double>(c.hidden) / 4 + 8, OnCpu(c, in, *cpu));
    }
  }
  const NormResult result = OnDevice(c, in);
  judge("cuda", kCudaAdditions, result);
  if (!c.x) Expect(SameBits(result.residual, in.residual), c.Text() + ": residual without x");
  const NormResult again = OnDevice(c, in);
  Expect(SameBits(result.residual, again.residual) && result.y == again.y &&
             result.codes == again.codes && SameBits(result.scale, again.scale),
         c.Text() + ": two runs differ");
}

// An infinity in one token: its scale says so, its codes are 0, and other tokens are as ever.
void InfinityIsSaid(std::mt19937_64& random, NormOutput output) {
  const NormCase c{ActivationType::kBF16, output, 3, 264, true, false, true};
  NormInputs in = RandomInputs(random, c);
  in.x[static_cast<size_t>(2 * c.hidden + 5)] = Round(c.type, INFINITY);
  const NormResult got = OnDevice(c, in);
  const auto from = got.codes.begin() + 2 * c.hidden;
  Expect(
      std::isnan(got.scale[2]) && std::all_of(from, from + c.hidden, [](int q) { return q == 0; }),
      c.Text() + ": an infinity is not said");
  Expect(got.scale[0] > 0 && got.scale[1] == 0, c.Text() + ": scales beside an infinity");
}

void Refusals() {
  const DeviceMemory memory(4096);
  auto* floats = memory.As<float>();
  const AddRmsNormArgs good{ActivationType::kF16,
                            1,
                            16,
                            1e-6f,
                            floats,
                            16,
                            floats + 64,
                            16,
                            nullptr,
                            floats + 128,
                            NormOutput::kActivation,
                            floats + 256,
                            16,
                            nullptr};
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(AddRmsNorm(bad, nullptr), part);
  };
  refused([](auto& a) { a.hidden = 18; }, "hidden is 18; it must be a multiple of 4");
  refused([](auto& a) { a.hidden = a.residual_stride = 16388; }, "at most 16384");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.epsilon = 0; }, "epsilon is 0");
  refused([](auto& a) { a.epsilon = NAN; }, "must be above 0");
  refused([](auto& a) { a.residual += 1; }, "residual is misaligned");
  refused([](auto& a) { a.residual_stride = 12; }, "residual_stride is 12");
  refused([](auto& a) { a.x_stride = 18; }, "x_stride is 18");
  refused([=](auto& a) { a.x = nullptr, a.x_weight = floats; }, "x_weight without x");
  refused([=](auto& a) { a.x_weight = floats + 1; }, "x_weight is misaligned");
  refused([](auto& a) { a.weight = nullptr; }, "weight is null");
  refused([](auto& a) { a.y = nullptr; }, "weight without y");
  refused([](auto& a) { a.y = nullptr, a.x = nullptr; }, "nothing to do");
  refused([](auto& a) { a.output = NormOutput::kInt8; }, "y_scale is null");
  refused([=](auto& a) { a.y_scale = floats; }, "y_scale with an output");
  auto none = good;
  none.tokens = 0;
  Expect(AddRmsNorm(none, nullptr).empty(), "no tokens are nothing to do");
}

}  // namespace

void CheckNorms(std::mt19937_64& random, bool small) {
  Refusals();
  InfinityIsSaid(random, NormOutput::kInt8);
  InfinityIsSaid(random, NormOutput::kE4m3);
  // 1, 2 and 4 vectors per thread; whole blocks and ragged ones.
  std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 4},    {5, 132},  {3, 1024}, {1, 1028},
                                                     {2, 4100}, {4, 8192}, {2, 16384}};
  if (!small) shapes.insert(shapes.end(), {{300, 4096}, {64, 8192}, {70000, 16}});
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (NormOutput output : {NormOutput::kActivation, NormOutput::kInt8, NormOutput::kE4m3}) {
      for (const auto& [tokens, hidden] : shapes) {
        RunCase(random, {type, output, tokens, hidden, true, false, true});
        RunCase(random, {type, output, tokens, hidden, true, true, true});
        RunCase(random, {type, output, tokens, hidden, false, false, true});
      }
      RunCase(random, {type, output, 3, 516, true, true, false});
    }
  }
}

}  // namespace quern::kernels::testing
