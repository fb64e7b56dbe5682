// The elementwise kernels against their references: fresh random inputs, ragged shapes, poisoned
// outputs. The norms are in elementwise_norm_checks.cc.

#include <cmath>
#include <limits>

#include "quern/kernels/embedding_gather.h"
#include "quern/kernels/gated_product.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckNorms(std::mt19937_64& random, bool small);  // elementwise_norm_checks.cc

namespace {

constexpr ActivationType kTypes[] = {ActivationType::kF16, ActivationType::kBF16};

// One product in float32: equal to the reference bit for bit, NaN where an id is out of range.
void GatherCase(std::mt19937_64& random, ActivationType type, int64_t vocab, int64_t hidden,
                int64_t tokens, float scale) {
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
                        : static_cast<int32_t>(random() % static_cast<uint64_t>(vocab));
  }
  const DeviceMemory device_table(spread);
  const DeviceMemory device_ids(ids);
  const int64_t out_stride = hidden + 8;
  DeviceMemory out(static_cast<size_t>((tokens + 1) * out_stride) * 4);
  out.Fill(0xff);
  const std::string wrong =
      EmbeddingGather({type, device_table.As(), table_stride, vocab, hidden,
                       device_ids.As<int32_t>(), tokens, scale, out.As<float>(), out_stride},
                      nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto memory = out.Read<float>(0, out.bytes() / 4);
  ExpectNothingOutside(memory, tokens, hidden, out_stride, what);
  const auto got = Gathered(memory, tokens, hidden, out_stride);
  std::vector<float> expected(static_cast<size_t>(hidden));
  bool equal = true;
  for (int64_t t = 0; t < tokens; ++t) {
    ref::EmbeddingGather(table.data(), vocab, hidden, ids[static_cast<size_t>(t)], scale,
                         expected.data());
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
  refused([](auto& a) { a.vocab = 0; }, "vocab is 0");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.ids = nullptr; }, "ids is null");
  refused([](auto& a) { a.table = static_cast<const uint16_t*>(a.table) + 1; }, "table is misal");
  refused([](auto& a) { a.out += 2; }, "out is misaligned");
}

enum class GateLayout { kTwo, kOne, kTurns, kInPlace };

struct GateCase {
  Gate gate;
  ActivationType type;
  int64_t tokens, inner;
  GateLayout layout;

  std::string Text() const {
    constexpr const char* kGates[] = {"silu", "gelu", "clamped"};
    constexpr const char* kLayouts[] = {" two", " one", " turns", " in place"};
    return std::string(kGates[static_cast<int>(gate)]) + " " + Name(type) + " " +
           std::to_string(tokens) + "x" + std::to_string(inner) +
           kLayouts[static_cast<int>(layout)];
  }
};

// `got` is act(g) * u, rounded to the type. With a the argument of exp: the kernel errs in a by 6
// roundings of 2^-24 (GELU's), in __expf by 2 + 1.173 |a| units of 2^-23 (CUDA programming guide),
// and has four roundings after that; where the gate is all but closed exp is infinite, the CPU's
// clamped at e^-87. Then the rounding to the type, and below the type's normal numbers half their
// step.
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
    const double wide = g[i];
    const double a = c.gate == Gate::kGeluTanh
                         ? 1.6 * wide * (1 + 0.044715 * wide * wide)
                         : wide * (c.gate == Gate::kSilu ? 1.0 : double{kGateAlpha});
    const double relative = (4 + 4.2 * std::min(std::fabs(a), 90.0)) * 0x1p-23;
    const bool half = c.type == ActivationType::kF16;
    const double bound = (relative + (half ? 0x1p-11 : 0x1p-8)) * std::fabs(exact[i]) +
                         4e-38 * std::fabs(wide) * (1 + std::fabs(u[i])) + (half ? 0x1p-25 : 1e-40);
    const double error = std::fabs(value - double{exact[i]});
    worst = std::isnan(error) ? INFINITY : std::max(worst, error / bound);
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(worst <= 1, c.Text() + " " + who + text);
}

void RunGateCase(std::mt19937_64& random, const GateCase& c) {
  auto g_bits = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 4));
  const auto u_bits = RoundAll(c.type, RandomNormal(random, c.tokens * c.inner, 2));
  const float far[] = {-200, -90, -20, -1e-4f, 0, 1e-4f, 6.99f, 7.01f, 20, 200, 60000, -60000};
  for (size_t i = 0; i < g_bits.size() && i < std::size(far); ++i) {
    g_bits[i] = Round(c.type, far[(i + random()) % std::size(far)]);
  }
  const auto g = WidenAll(c.type, g_bits);
  const auto u = WidenAll(c.type, u_bits);
  auto exact = g;
  ref::GatedActivation(c.gate, u.data(), c.tokens * c.inner, exact.data());
  for (const CpuKernels* cpu : AllCpuKernels()) {
    auto y = g;
    cpu->gated_activation(c.gate, u.data(), c.tokens * c.inner, y.data());
    ExpectGated(c, cpu->name, g, u, exact, RoundAll(c.type, y));
  }
  // The device's memory: gates and ups in one row each, side by side, or in turns.
  const bool wide = c.layout == GateLayout::kOne || c.layout == GateLayout::kTurns;
  const int64_t columns = wide ? 2 * c.inner : c.inner;
  std::vector<uint16_t> first(static_cast<size_t>(c.tokens * columns));
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t i = 0; i < c.inner; ++i) {
      const auto from = static_cast<size_t>(t * c.inner + i);
      const int64_t row = t * columns;
      const bool turns = c.layout == GateLayout::kTurns;
      first[static_cast<size_t>(row + (turns ? 2 * i : i))] = g_bits[from];
      if (wide) first[static_cast<size_t>(row + (turns ? 2 * i + 1 : c.inner + i))] = u_bits[from];
    }
  }
  const int64_t stride = columns + 8;
  const DeviceMemory gate(Spread(first, columns, stride));
  const DeviceMemory up(Spread(u_bits, c.inner, c.inner + 16));
  const bool in_place = c.layout == GateLayout::kInPlace;
  const int64_t y_stride = in_place ? stride : c.inner + 24;
  DeviceMemory y(static_cast<size_t>((c.tokens + 1) * y_stride) * 2);
  GatedProductArgs args{c.gate, c.type,  c.tokens,     c.inner, gate.As(),
                        stride, up.As(), c.inner + 16, y.As(),  y_stride};
  if (c.layout == GateLayout::kOne) {
    args.up = gate.As<uint16_t>() + c.inner;
    args.up_stride = stride;
  }
  if (c.layout == GateLayout::kTurns) args.up = nullptr;
  if (in_place) args.y = gate.As();
  std::vector<uint16_t> kept;
  for (int run = 0; run < (in_place ? 1 : 2); ++run) {
    y.Fill(0xff);
    const std::string wrong = GatedProduct(args, nullptr);
    Expect(wrong.empty(), c.Text() + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const DeviceMemory& out = in_place ? gate : y;
    const auto memory = out.Read<uint16_t>(0, out.bytes() / 2);
    ExpectNothingOutside(memory, c.tokens, c.inner, y_stride, c.Text());
    if (run == 1) Expect(memory == kept, c.Text() + ": two runs differ");
    kept = memory;
  }
  ExpectGated(c, "cuda", g, u, exact, Gathered(kept, c.tokens, c.inner, y_stride));
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

void Gates(std::mt19937_64& random, bool small) {
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
  refused([](auto& a) { a.up_stride = 20; }, "up_stride is 20");
  refused([](auto& a) { a.y_stride = 8; }, "y_stride is 8");
  refused([](auto& a) { a.y = const_cast<void*>(a.gate); },
          "y is gate; that needs the same stride");
  refused([](auto& a) { a.up = static_cast<const uint16_t*>(a.up) + 4; }, "up is misaligned");
  refused([](auto& a) { a.tokens = int64_t{1} << 30; }, "at most 2^33 elements");
}

void Run(std::mt19937_64& random, bool small) {
  Gathers(random, small);
  Gates(random, small);
  CheckNorms(random, small);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::Run);
}
