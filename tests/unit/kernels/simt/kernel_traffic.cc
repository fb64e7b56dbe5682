// Runs kernels on the emulator, one shape each, and prints a line of JSON for each launch: how it
// was launched, what it moved, and what its operands weigh. hack/kernel-report reads it.

#include <cstdio>
#include <string>
#include <vector>

#include "kernels/cuda/w4a16/w4a16_plan.h"
#include "kernels/simt/simt.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/w4a16.h"
#include "quern/kernels/w8a8.h"
#include "tests/cuda/device_support.h"

namespace quern::kernels::testing {
namespace {

// `weight_bytes` are to be read once; `other_bytes` at least once.
void Print(const std::string& op, const std::string& shape, int64_t batch, int64_t weight_bytes,
           int64_t other_bytes) {
  const simt::Report& report = simt::LastReport();
  const simt::Counts& counts = report.counts;
  std::printf(
      "{\"op\":\"%s\",\"shape\":\"%s\",\"batch\":%lld,\"kernel\":\"%s\",\"threads\":%llu,"
      "\"blocks\":%llu,\"dynamic_shared\":%zu,\"weight_bytes\":%lld,\"other_bytes\":%lld,"
      "\"load_bytes\":%lld,\"store_bytes\":%lld,\"different_bytes\":%lld,"
      "\"shared_wavefronts\":%lld,\"least_wavefronts\":%lld,\"mma\":%lld}\n",
      op.c_str(), shape.c_str(), static_cast<long long>(batch), report.kernel.c_str(),
      static_cast<unsigned long long>(report.block.count()),
      static_cast<unsigned long long>(report.grid.count()), report.dynamic_shared_bytes,
      static_cast<long long>(weight_bytes), static_cast<long long>(other_bytes),
      static_cast<long long>(counts.global_load.units * 32),
      static_cast<long long>(counts.global_store.units * 32),
      static_cast<long long>(counts.global_sectors * 32),
      static_cast<long long>(counts.shared_load.units + counts.shared_store.units),
      static_cast<long long>(counts.shared_load.minimum + counts.shared_store.minimum),
      static_cast<long long>(counts.mma));
}

void W4A16(W4Format format, ActivationType type, int64_t rows, int64_t cols, int64_t batch) {
  W4Matrix w{format, rows, cols, nullptr, nullptr};
  const DeviceMemory codes(std::vector<uint8_t>(static_cast<size_t>(W4CodeBytes(w)), 0x21));
  const DeviceMemory scales(std::vector<uint8_t>(static_cast<size_t>(W4ScaleBytes(w)), 1));
  w.codes = codes.As<uint8_t>();
  w.scales = scales.As<uint16_t>();
  const DeviceMemory x(std::vector<uint16_t>(static_cast<size_t>(batch * cols), 0));
  const DeviceMemory y(static_cast<size_t>(batch * rows * 2));
  DeviceMemory workspace(W4A16WorkspaceBytes());
  workspace.Fill(0);
  const std::string wrong = W4A16MatMul(
      {w, type, x.As(), cols, y.As(), rows, batch, workspace.As(), workspace.bytes()}, nullptr);
  if (!wrong.empty()) Die(wrong);
  Print(std::string("w4a16 ") + Name(format) + " " + Name(type),
        std::to_string(rows) + "x" + std::to_string(cols), batch, W4CodeBytes(w) + W4ScaleBytes(w),
        batch * (rows + cols) * 2);
}

DeviceMemory Bytes(int64_t count, uint8_t value = 0) {
  return DeviceMemory(std::vector<uint8_t>(static_cast<size_t>(count), value));
}

void Gguf(WeightType type, int64_t rows, int64_t cols, int64_t batch) {
  GgufMatrix w{type, rows, cols, nullptr};
  const DeviceMemory data = Bytes(GgufBytes(w), 1);
  w.data = data.As<uint8_t>();
  const DeviceMemory x = Bytes(batch * cols * 2);
  const DeviceMemory y(static_cast<size_t>(batch * rows * 2));
  const std::string wrong =
      GgufMatMul({w, ActivationType::kF16, x.As(), cols, y.As(), rows, batch}, nullptr);
  if (!wrong.empty()) Die(wrong);
  Print(std::string("gguf ") + FindWeightTypeInfo(type)->name,
        std::to_string(rows) + "x" + std::to_string(cols), batch, GgufBytes(w),
        batch * (rows + cols) * 2);
}

void Dense(ActivationType type, int64_t rows, int64_t cols, int64_t batch) {
  const DeviceMemory w = Bytes(rows * cols * 2);
  const DeviceMemory x = Bytes(batch * cols * 2);
  const DeviceMemory y(static_cast<size_t>(batch * rows * 2));
  const std::string wrong =
      Gemm({type, w.As(), cols, rows, cols, x.As(), cols, y.As(), rows, batch}, nullptr);
  if (!wrong.empty()) Die(wrong);
  Print(std::string("gemm ") + Name(type), std::to_string(rows) + "x" + std::to_string(cols), batch,
        rows * cols * 2, batch * (rows + cols) * 2);
}

void W8A8(EightBitType operands, int64_t rows, int64_t cols, int64_t batch) {
  const DeviceMemory w = Bytes(rows * cols);
  const DeviceMemory x = Bytes(batch * cols);
  const DeviceMemory w_scales = Bytes(rows * 4);
  const DeviceMemory x_scales = Bytes(batch * 4);
  const DeviceMemory y(static_cast<size_t>(batch * rows * 2));
  const std::string wrong =
      W8A8MatMul({operands, ActivationType::kF16, w.As(), cols, w_scales.As<float>(), rows, cols,
                  x.As(), cols, x_scales.As<float>(), y.As(), rows, batch},
                 nullptr);
  if (!wrong.empty()) Die(wrong);
  Print(operands == EightBitType::kInt8 ? "w8a8 int8" : "w8a8 e4m3",
        std::to_string(rows) + "x" + std::to_string(cols), batch, rows * (cols + 4),
        batch * (rows * 2 + cols + 4));
}

int Main(int argc, char** /*argv*/) {
  if (argc != 1) Die("kernel_traffic takes no arguments");
  simt::SetOptions({.seed = 0, .resident_blocks = 2, .count_traffic = true});
  for (W4Format format : {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1}) {
    for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
      for (int64_t batch : {1, 8, 16, 32, 64}) W4A16(format, type, 1024, 512, batch);
    }
  }
  for (int64_t batch : {1, 8, 32}) {
    for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                            WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
      Gguf(type, 1024, 512, batch);
    }
    Dense(ActivationType::kF16, 1024, 512, batch);
    Dense(ActivationType::kBF16, 1024, 512, batch);
    W8A8(EightBitType::kInt8, 1024, 512, batch);
    W8A8(EightBitType::kE4m3, 1024, 512, batch);
  }
  return 0;
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) { return quern::kernels::testing::Main(argc, argv); }
