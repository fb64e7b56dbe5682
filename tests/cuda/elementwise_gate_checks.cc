#include <cmath>

#include "quern/kernels/gated_product.h"
#include "tests/cuda/row_codes_checks.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckGates(std::mt19937_64& random, bool small);

namespace {

constexpr ActivationType kTypes[] = {ActivationType::kF16, ActivationType::kBF16};

enum class GateLayout { kTwo, kOne, kTurns, kInPlace };

struct GateCase {
  Gate gate;
  ActivationType type;
  int64_t tokens, inner;
  GateLayout layout;
  RowOutput output = RowOutput::kActivation;

  std::string Text() const {
    constexpr const char* kGates[] = {"silu", "gelu", "clamped"};
    constexpr const char* kLayouts[] = {" two", " one", " turns", " in place"};
    constexpr const char* kOutputs[] = {"", " int8", " e4m3"};
    return std::string(kGates[static_cast<int>(gate)]) + " " + Name(type) + " " +
           std::to_string(tokens) + "x" + std::to_string(inner) +
           kLayouts[static_cast<int>(layout)] + kOutputs[static_cast<int>(output)];
  }
};

// By how much act(g) * u, near `exact`, may be off before it is rounded. With a the argument of
// exp: the kernel errs in a by 6 roundings of 2^-24 (GELU's), in __expf by 2 + 1.173 |a| units of
// 2^-23 (CUDA programming guide), and has four roundings after that; where the gate is all but
// closed exp is infinite, the CPU's clamped at e^-87.
double GateError(Gate gate, double g, double u, double exact) {
  const double a = gate == Gate::kGeluTanh ? 1.6 * g * (1 + 0.044715 * g * g)
                                           : g * (gate == Gate::kSilu ? 1.0 : double{kGateAlpha});
  return (4 + 4.2 * std::min(std::fabs(a), 90.0)) * 0x1p-23 * std::fabs(exact) +
         4e-38 * std::fabs(g) * (1 + std::fabs(u));
}

// `got` is act(g) * u, rounded to the type; below the type's normal numbers by half their step.
void ExpectGated(const GateCase& c, const std::string& who, const std::vector<float>& g,
                 const std::vector<float>& u, const std::vector<float>& exact,
                 const std::vector<uint16_t>& got) {
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = Widen(c.type, got[i]);
    const double rounded = Widen(c.type, Round(c.type, exact[i]));
    if (!std::isfinite(rounded) || !std::isfinite(value)) {
      // 65520 is where binary16 ends; beside it either side may be right.
      const bool close = c.type == ActivationType::kF16 && std::fabs(exact[i]) > 65450 &&
                         std::fabs(exact[i]) < 65600 && std::fabs(value) >= 65504;
      if (value != rounded && !close) worst = INFINITY;
      continue;
    }
    const bool half = c.type == ActivationType::kF16;
    const double bound = GateError(c.gate, g[i], u[i], exact[i]) +
                         (half ? 0x1p-11 : 0x1p-8) * std::fabs(exact[i]) + (half ? 0x1p-25 : 1e-40);
    const double error = std::fabs(value - double{exact[i]});
    worst = std::isnan(error) ? INFINITY : std::max(worst, error / bound);
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(worst <= 1, c.Text() + " " + who + text);
}

// `codes` and `scales` are act(g) * u, quantised.
void ExpectGatedCodes(const GateCase& c, const std::vector<float>& g, const std::vector<float>& u,
                      const std::vector<float>& exact, const std::vector<uint8_t>& codes,
                      const std::vector<float>& scales) {
  double worst = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto row = static_cast<size_t>(t * c.inner);
    const std::vector<float> values(exact.begin() + t * c.inner, exact.begin() + (t + 1) * c.inner);
    std::vector<double> errors(values.size());
    for (size_t i = 0; i < errors.size(); ++i) {
      errors[i] = GateError(c.gate, g[row + i], u[row + i], values[i]);
    }
    worst = std::max(worst, RowCodesError(c.output, values, errors, scales[static_cast<size_t>(t)],
                                          &codes[row]));
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(worst <= 1, c.Text() + text);
}

// Gates and ups as a device's memory holds them: in rows of their own, side by side, or in turns.
struct GateMemory {
  int64_t stride;
  DeviceMemory gate, up;

  GateMemory(const GateCase& c, const std::vector<uint16_t>& g, const std::vector<uint16_t>& u)
      : stride(Columns(c) + 8),
        gate(Spread(First(c, g, u), Columns(c), stride)),
        up(Spread(u, c.inner, c.inner + 16)) {}

  GatedProductArgs Args(const GateCase& c) const {
    GatedProductArgs args{c.gate, c.type,  c.tokens,     c.inner, gate.As(),
                          stride, up.As(), c.inner + 16, nullptr, 0};
    if (c.layout == GateLayout::kOne) {
      args.up = gate.As<uint16_t>() + c.inner;
      args.up_stride = stride;
    }
    if (c.layout == GateLayout::kTurns) args.up = nullptr;
    args.output = c.output;
    return args;
  }

 private:
  static bool Wide(const GateCase& c) {
    return c.layout == GateLayout::kOne || c.layout == GateLayout::kTurns;
  }
  static int64_t Columns(const GateCase& c) { return Wide(c) ? 2 * c.inner : c.inner; }
  static std::vector<uint16_t> First(const GateCase& c, const std::vector<uint16_t>& g,
                                     const std::vector<uint16_t>& u) {
    const int64_t columns = Columns(c);
    std::vector<uint16_t> first(static_cast<size_t>(c.tokens * columns));
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t i = 0; i < c.inner; ++i) {
        const auto from = static_cast<size_t>(t * c.inner + i);
        const int64_t row = t * columns;
        const bool turns = c.layout == GateLayout::kTurns;
        first[static_cast<size_t>(row + (turns ? 2 * i : i))] = g[from];
        if (Wide(c)) first[static_cast<size_t>(row + (turns ? 2 * i + 1 : c.inner + i))] = u[from];
      }
    }
    return first;
  }
};

// The product in the activations' type, run twice; in place once.
std::vector<uint16_t> GatesOnDevice(const GateCase& c, const GateMemory& memory) {
  GatedProductArgs args = memory.Args(c);
  const bool in_place = c.layout == GateLayout::kInPlace;
  args.y_stride = in_place ? memory.stride : c.inner + 24;
  DeviceMemory y(static_cast<size_t>((c.tokens + 1) * args.y_stride) * 2);
  args.y = in_place ? memory.gate.As() : y.As();
  std::vector<uint16_t> kept;
  for (int run = 0; run < (in_place ? 1 : 2); ++run) {
    y.Fill(0xff);
    const std::string wrong = GatedProduct(args, nullptr);
    Expect(wrong.empty(), c.Text() + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const DeviceMemory& out = in_place ? memory.gate : y;
    const auto got = out.Read<uint16_t>(0, out.bytes() / 2);
    ExpectNothingOutside(got, c.tokens, c.inner, args.y_stride, c.Text());
    if (run == 1) Expect(got == kept, c.Text() + ": two runs differ");
    kept = got;
  }
  return Gathered(kept, c.tokens, c.inner, args.y_stride);
}

struct GateCodes {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

// As codes, run twice.
GateCodes GateCodesOnDevice(const GateCase& c, const GateMemory& memory) {
  GatedProductArgs args = memory.Args(c);
  args.y_stride = c.inner + 24;
  DeviceMemory y(static_cast<size_t>((c.tokens + 1) * args.y_stride));
  DeviceMemory scale(static_cast<size_t>(c.tokens + 1) * 4);
  args.y = y.As();
  args.y_scale = scale.As<float>();
  GateCodes kept;
  for (int run = 0; run < 2; ++run) {
    y.Fill(0xff);
    scale.Fill(0xff);
    const std::string wrong = GatedProduct(args, nullptr);
    Expect(wrong.empty(), c.Text() + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const auto memory_of_codes = y.Read<uint8_t>(0, y.bytes());
    ExpectNothingOutside(memory_of_codes, c.tokens, c.inner, args.y_stride, c.Text());
    GateCodes got{Gathered(memory_of_codes, c.tokens, c.inner, args.y_stride),
                  scale.Read<float>(0, static_cast<size_t>(c.tokens + 1))};
    ExpectNothingOutside(got.scales, c.tokens, 1, 1, c.Text() + " scale");
    if (run == 1) {
      Expect(got.codes == kept.codes && SameBits(got.scales, kept.scales),
             c.Text() + ": two runs differ");
    }
    kept = got;
  }
  return kept;
}

void RunGateCase(std::mt19937_64& random, const GateCase& c) {
  auto g_bits = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 4));
  const auto u_bits = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 2));
  const float far[] = {-200, -90, -20, -1e-4f, 0, 1e-4f, 6.99f, 7.01f, 20, 200, 60000, -60000};
  for (size_t i = 0; i < g_bits.size() && i < std::size(far); ++i) {
    g_bits[i] = Round(c.type, far[(i + random()) % std::size(far)]);
  }
  if (c.tokens > 2) std::fill_n(g_bits.begin() + c.inner, c.inner, uint16_t{0});  // all closed
  const auto g = WidenAll(c.type, g_bits);
  const auto u = WidenAll(c.type, u_bits);
  auto exact = g;
  ref::GatedActivation(c.gate, u.data(), c.tokens * c.inner, exact.data());
  const GateMemory memory(c, g_bits, u_bits);
  if (c.output != RowOutput::kActivation) {
    const GateCodes got = GateCodesOnDevice(c, memory);
    ExpectGatedCodes(c, g, u, exact, got.codes, got.scales);
    return;
  }
  for (const CpuKernels* cpu : AllCpuKernels()) {
    auto y = g;
    cpu->gated_activation(c.gate, u.data(), c.tokens * c.inner, y.data());
    ExpectGated(c, cpu->name, g, u, exact, RoundAll(c.type, y));
  }
  ExpectGated(c, "cuda", g, u, exact, GatesOnDevice(c, memory));
}

// What is no number stays none.
void GateOfNan(Gate gate) {
  std::vector<uint16_t> bits(8, FloatToHalf(1));
  bits[3] = FloatToHalf(NAN);
  const DeviceMemory x(bits);
  const DeviceMemory ones(std::vector<uint16_t>(8, FloatToHalf(1)));
  for (bool up : {false, true}) {
    const DeviceMemory y(16);
    Expect(GatedProduct({gate, ActivationType::kF16, 1, 8, up ? ones.As() : x.As(), 8,
                         up ? x.As() : ones.As(), 8, y.As(), 8},
                        nullptr)
               .empty(),
           "the gate of NaN");
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const auto got = y.Read<uint16_t>(0, 8);
    Expect(std::isnan(HalfToFloat(got[3])) && !std::isnan(HalfToFloat(got[2])), "NaN stays NaN");
  }
}

// An infinity in one token: its scale says so, its codes are 0, and other tokens are as ever.
void GatesSayInfinity(std::mt19937_64& random, RowOutput output) {
  const GateCase c{Gate::kSilu, ActivationType::kBF16, 3, 264, GateLayout::kTwo, output};
  const auto g = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 4));
  auto u = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 2));
  u[static_cast<size_t>(c.inner + 5)] = Round(c.type, INFINITY);
  const GateCodes got = GateCodesOnDevice(c, GateMemory(c, g, u));
  const auto from = got.codes.begin() + c.inner;
  Expect(std::isnan(got.scales[1]) &&
             std::all_of(from, from + c.inner, [](uint8_t code) { return code == 0; }),
         c.Text() + ": an infinity is not said");
  Expect(got.scales[0] > 0 && got.scales[2] > 0, c.Text() + ": scales beside an infinity");
}

void AllGates(std::mt19937_64& random, bool small) {
  for (Gate gate : {Gate::kSilu, Gate::kGeluTanh, Gate::kSiluClamped}) {
    GateOfNan(gate);
    for (ActivationType type : kTypes) {
      for (GateLayout layout :
           {GateLayout::kTwo, GateLayout::kOne, GateLayout::kTurns, GateLayout::kInPlace}) {
        RunGateCase(random, {gate, type, 1, 8, layout});
        RunGateCase(random, {gate, type, 7, 408, layout});
        RunGateCase(random, {gate, type, 3, 2056, layout});
        if (!small) RunGateCase(random, {gate, type, 100, 14336, layout});
      }
    }
  }
}

void QuantisedGates(std::mt19937_64& random, bool small) {
  for (RowOutput output : {RowOutput::kInt8, RowOutput::kE4m3}) {
    GatesSayInfinity(random, output);
    for (Gate gate : {Gate::kSilu, Gate::kGeluTanh, Gate::kSiluClamped}) {
      for (ActivationType type : kTypes) {
        for (GateLayout layout : {GateLayout::kTwo, GateLayout::kTurns}) {
          RunGateCase(random, {gate, type, 1, 8, layout, output});
          RunGateCase(random, {gate, type, 4, 408, layout, output});
          if (!small) RunGateCase(random, {gate, type, 100, 14336, layout, output});
        }
      }
      // One matrix; rows of 8 and of 32 elements a thread, and the widest.
      RunGateCase(random, {gate, ActivationType::kF16, 2, 2056, GateLayout::kOne, output});
      RunGateCase(random, {gate, ActivationType::kBF16, 1, 8192, GateLayout::kOne, output});
      RunGateCase(random, {gate, ActivationType::kF16, 1, 8200, GateLayout::kTurns, output});
    }
    RunGateCase(random, {Gate::kSilu, ActivationType::kF16, 1, kMaxQuantizedWidth, GateLayout::kTwo,
                         output});
  }
}

void GateRefusals() {
  const DeviceMemory memory(64 * 2);
  const GatedProductArgs good{
      Gate::kSilu, ActivationType::kF16,       0, 16, memory.As(), 32, memory.As(),
      16,          memory.As<uint16_t>() + 32, 16};
  Expect(GatedProduct(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(GatedProduct(bad, nullptr), part);
  };
  refused([](auto& a) { a.inner = 12; }, "inner is 12; it must be a multiple of 8");
  refused([](auto& a) { a.gate_stride = 8; }, "gate_stride is 8");
  refused([](auto& a) { a.up = nullptr, a.gate_stride = 24; }, "at least 32");
  refused([](auto& a) { a.y_scale = static_cast<float*>(a.y); }, "y_scale with an output");
  refused([](auto& a) { a.output = RowOutput::kInt8; }, "y_scale is null");
  refused([](auto& a) { a.output = RowOutput::kE4m3, a.y = const_cast<void*>(a.gate); },
          "y is gate; codes must be memory of their own");
  refused(
      [](auto& a) {
        a.output = RowOutput::kInt8;
        a.inner = a.gate_stride = a.up_stride = a.y_stride = 32776;
      },
      "inner is 32776; it must be a multiple of 8 and at least 8, at most 32768");
  refused([](auto& a) { a.y = static_cast<uint16_t*>(a.y) + 4; }, "y is misaligned");
  refused([](auto& a) { a.up_stride = 20; }, "up_stride is 20");
  refused([](auto& a) { a.y_stride = 8; }, "y_stride is 8");
  refused([](auto& a) { a.y = const_cast<void*>(a.gate); },
          "y is gate; that needs the same stride");
  refused([](auto& a) { a.up = static_cast<const uint16_t*>(a.up) + 4; }, "up is misaligned");
  refused([](auto& a) { a.tokens = int64_t{1} << 30; }, "at most 2^33 elements");
}

}  // namespace

void CheckGates(std::mt19937_64& random, bool small) {
  GateRefusals();
  AllGates(random, small);
  QuantisedGates(random, small);
}

}  // namespace quern::kernels::testing
