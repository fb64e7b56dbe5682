#include <cmath>

#include "quern/kernels/quantize_rows.h"
#include "tests/cuda/row_codes_checks.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {

void CheckQuantizeRows(std::mt19937_64& random, bool small);

namespace {

struct QuantizedRows {
  std::vector<uint8_t> codes;  // [tokens, width]
  std::vector<float> scales;   // [tokens]
};

QuantizedRows QuantizeOnDevice(ActivationType type, RowOutput output, int64_t width,
                               const std::vector<uint16_t>& bits, const std::string& what) {
  const int64_t tokens = static_cast<int64_t>(bits.size()) / width;
  const int64_t x_stride = width + 16;
  const int64_t y_stride = width + 8;
  const DeviceMemory x(Spread(bits, width, x_stride));
  DeviceMemory y(static_cast<size_t>((tokens + 1) * y_stride));
  DeviceMemory scale(static_cast<size_t>(tokens + 1) * 4);
  y.Fill(0xff);
  scale.Fill(0xff);
  const std::string wrong = QuantizeRows(
      {type, tokens, width, x.As(), x_stride, output, y.As(), y_stride, scale.As<float>()},
      nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto memory = y.Read<uint8_t>(0, y.bytes());
  ExpectNothingOutside(memory, tokens, width, y_stride, what);
  const auto scales = scale.Read<float>(0, static_cast<size_t>(tokens + 1));
  ExpectNothingOutside(scales, tokens, 1, 1, what + " scale");
  return {Gathered(memory, tokens, width, y_stride), scales};
}

// Rows of all sizes: the second is zero, the third has an infinity or a NaN, the fourth values so
// small that their scale would be none, as far as there are so many.
void QuantizeCase(std::mt19937_64& random, ActivationType type, RowOutput output, int64_t tokens,
                  int64_t width) {
  const std::string what = std::string("quantise ") + Name(type) +
                           (output == RowOutput::kInt8 ? " int8 " : " e4m3 ") +
                           std::to_string(tokens) + "x" + std::to_string(width);
  std::vector<uint16_t> bits;
  for (int64_t t = 0; t < tokens; ++t) {
    const float size = t == 1 ? 0 : t == 3 ? 1e-32f : std::ldexp(1.0f, static_cast<int>(t % 9) - 4);
    const auto row = RoundAll(type, RandomNormal(random, width, size));
    bits.insert(bits.end(), row.begin(), row.end());
  }
  if (tokens > 2) {
    const float odd[] = {INFINITY, -INFINITY, NAN};
    bits[static_cast<size_t>(2 * width) + random() % static_cast<size_t>(width)] =
        Round(type, odd[random() % 3]);
  }
  const QuantizedRows got = QuantizeOnDevice(type, output, width, bits, what);
  const auto x = WidenAll(type, bits);
  double worst = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const uint8_t* codes = &got.codes[static_cast<size_t>(t * width)];
    const float scale = got.scales[static_cast<size_t>(t)];
    if (t == 2 || t == 3) {
      const bool none = std::all_of(codes, codes + width, [](uint8_t code) { return code == 0; });
      Expect(none && (t == 2 ? std::isnan(scale) : scale == 0), what + ": a row without codes");
      continue;
    }
    const std::vector<float> row(x.begin() + t * width, x.begin() + (t + 1) * width);
    worst = std::max(worst,
                     RowCodesError(output, row, std::vector<double>(row.size(), 0), scale, codes));
  }
  char text[60];
  std::snprintf(text, sizeof(text), ": error %.3f of the bound", worst);
  Expect(worst <= 1, what + text);
}

void QuantizeRefusals() {
  const DeviceMemory memory(4096);
  const QuantizeRowsArgs good{ActivationType::kF16,
                              0,
                              16,
                              memory.As(),
                              16,
                              RowOutput::kInt8,
                              memory.As<uint8_t>() + 1024,
                              16,
                              memory.As<float>() + 512};
  Expect(QuantizeRows(good, nullptr).empty(), "no tokens are nothing to do");
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(QuantizeRows(bad, nullptr), part);
  };
  refused([](auto& a) { a.output = RowOutput::kActivation; }, "it must be int8 or E4M3");
  refused([](auto& a) { a.y = const_cast<void*>(a.x); }, "y is x");
  refused([](auto& a) { a.tokens = -1; }, "tokens is -1");
  refused([](auto& a) { a.width = 12; }, "width is 12; it must be a multiple of 8");
  refused([](auto& a) { a.width = a.x_stride = a.y_stride = 32776; }, "at most 32768");
  refused([](auto& a) { a.x = static_cast<const uint16_t*>(a.x) + 4; }, "x is misaligned");
  refused([](auto& a) { a.x_stride = 20; }, "x_stride is 20");
  refused([](auto& a) { a.y = static_cast<uint8_t*>(a.y) + 4; }, "y is misaligned");
  refused([](auto& a) { a.y_stride = 8; }, "y_stride is 8");
  refused([](auto& a) { a.y_scale = nullptr; }, "y_scale is null");
}

}  // namespace

void CheckQuantizeRows(std::mt19937_64& random, bool small) {
  QuantizeRefusals();
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (RowOutput output : {RowOutput::kInt8, RowOutput::kE4m3}) {
      QuantizeCase(random, type, output, 1, 8);
      QuantizeCase(random, type, output, 6, 520);
      QuantizeCase(random, type, output, 2, 8192);
      QuantizeCase(random, type, output, 1, 8200);
      QuantizeCase(random, type, output, 1, kMaxQuantizedWidth);
      if (!small) QuantizeCase(random, type, output, 500, 4096);
    }
  }
}

}  // namespace quern::kernels::testing
