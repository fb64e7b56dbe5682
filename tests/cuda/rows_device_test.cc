// Rows of the residual and the logits' softcap against their definitions: fresh random inputs,
// ragged shapes, poisoned outputs.

#include <cmath>
#include <cstring>
#include <limits>

#include "quern/kernels/select_rows.h"
#include "quern/kernels/softcap_logits.h"
#include "tests/cuda/test_values.h"

namespace quern::kernels::testing {
namespace {

void SelectCase(std::mt19937_64& random, int64_t x_rows, int64_t width, int64_t count) {
  const std::string what = "rows " + std::to_string(count) + " of " + std::to_string(x_rows) + "x" +
                           std::to_string(width);
  const int64_t x_stride = width + 4;
  const int64_t out_stride = width + 8;
  const std::vector<float> x = RandomNormal(random, x_rows * x_stride, 1);
  const int32_t wrong_rows[] = {-1, static_cast<int32_t>(x_rows),
                                std::numeric_limits<int32_t>::min(),
                                std::numeric_limits<int32_t>::max()};
  std::vector<int32_t> rows(static_cast<size_t>(count));
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = i % 5 == 4 ? wrong_rows[i / 5 % 4]
                         : static_cast<int32_t>(random() % static_cast<uint64_t>(x_rows));
  }
  const DeviceMemory device_x(x);
  const DeviceMemory device_rows(rows);
  DeviceMemory out(static_cast<size_t>((count + 1) * out_stride) * 4);
  out.Fill(0xff);
  const std::string wrong =
      SelectRows({device_x.As<float>(), x_rows, x_stride, device_rows.As<int32_t>(), count, width,
                  out.As<float>(), out_stride},
                 nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto memory = out.Read<float>(0, out.bytes() / 4);
  ExpectNothingOutside(memory, count, width, out_stride, what);
  const auto got = Gathered(memory, count, width, out_stride);
  bool equal = true;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t row = rows[static_cast<size_t>(i)];
    const bool there = row >= 0 && row < x_rows;
    for (int64_t c = 0; c < width; ++c) {
      uint32_t bits;
      std::memcpy(&bits, &got[static_cast<size_t>(i * width + c)], 4);
      uint32_t right = 0x7fffffffu;  // the kernel's own NaN, not the poison
      if (there) std::memcpy(&right, &x[static_cast<size_t>(row * x_stride + c)], 4);
      equal = equal && bits == right;
    }
  }
  Expect(equal, what + ": differs");
}

void SoftcapCase(std::mt19937_64& random, float cap, int64_t count) {
  const std::string what = "softcap " + std::to_string(cap) + " of " + std::to_string(count);
  const std::vector<float> y = RandomNormal(random, count, 2 * cap);
  DeviceMemory device_y(y);
  const std::string wrong = SoftcapLogits({cap, count, device_y.As<float>()}, nullptr);
  Expect(wrong.empty(), what + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto got = device_y.Read<float>(0, static_cast<size_t>(count));
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double right = double{cap} * std::tanh(double{y[i]} / double{cap});
    worst = std::max(worst, std::abs(got[i] - right) / double{cap});
  }
  // The quotient's rounding moves tanh by at most 0.45 * 2^-24 (|x tanh'(x)| is below 0.45), CUDA's
  // tanhf is good to 2 units in the last place (2 * 2^-24), the product rounds once more.
  Expect(worst <= 4 * std::ldexp(1.0, -24), what + ": off by " + std::to_string(worst));
}

void Arguments() {
  const DeviceMemory x(64 * 4), rows(16), out(64 * 4);
  const SelectRowsArgs good{x.As<float>(), 4, 16, rows.As<int32_t>(), 0, 16, out.As<float>(), 16};
  Expect(SelectRows(good, nullptr).empty(), "no rows are nothing to do");
  const auto refused = [](const auto& start, auto args, const auto& change, const char* text) {
    change(args);
    ExpectRefusal(start(args, nullptr), text);
  };
  refused(
      SelectRows, good, [](auto& a) { a.width = 6; }, "width");
  refused(
      SelectRows, good, [](auto& a) { a.count = -1; }, "count");
  refused(
      SelectRows, good, [](auto& a) { a.x_stride = 12; }, "x_stride");
  refused(
      SelectRows, good, [](auto& a) { a.out_stride = 18; }, "out_stride");
  refused(
      SelectRows, good, [](auto& a) { a.rows = nullptr; }, "rows is null");
  refused(
      SelectRows, good, [](auto& a) { ++a.out; }, "out is misaligned");
  const SoftcapLogitsArgs cap{30, 0, out.As<float>()};
  Expect(SoftcapLogits(cap, nullptr).empty(), "no logits are nothing to do");
  refused(
      SoftcapLogits, cap, [](auto& a) { a.cap = 0; }, "cap");
  refused(
      SoftcapLogits, cap, [](auto& a) { a.count = 3; }, "count");
  refused(
      SoftcapLogits, cap, [](auto& a) { a.y = nullptr; }, "y is null");
}

void Run(std::mt19937_64& random, bool small) {
  SelectCase(random, 1, 4, 1);
  SelectCase(random, 7, 132, 13);
  SelectCase(random, 33, 1028, 6);
  SoftcapCase(random, 30, 4);
  SoftcapCase(random, 50, 5124);
  if (!small) {
    SelectCase(random, 4096, 8192, 1000);
    SoftcapCase(random, 30, 262144 * 32);
  }
  Arguments();
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::Run);
}
