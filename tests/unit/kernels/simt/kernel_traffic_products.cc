#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/grouped_matmul.h"
#include "quern/kernels/w4a16.h"
#include "quern/kernels/w8a8.h"
#include "tests/unit/kernels/simt/kernel_traffic.h"

// Products: the bulk is the weights.
namespace quern::kernels::testing {
namespace {

constexpr int64_t kRows = 1024;
constexpr int64_t kCols = 512;

Operation Product(const std::string& name, int64_t batch, const std::vector<simt::Range>& weights,
                  int64_t x_bytes, int64_t y_element = 2) {
  int64_t weight_bytes = 0;
  for (const simt::Range& range : weights) weight_bytes += static_cast<int64_t>(range.bytes);
  return {name,
          Extents(kRows, kCols),
          batch,
          weights,
          {{weight_bytes, weight_bytes + x_bytes, batch * kRows * y_element}}};
}

void W4A16(W4Format format, ActivationType type, int64_t batch) {
  W4Matrix w{format, kRows, kCols, nullptr, nullptr};
  const DeviceMemory codes = Bytes(W4CodeBytes(w), 0x21);
  const DeviceMemory scales = Bytes(W4ScaleBytes(w), 1);
  w.codes = codes.As<uint8_t>();
  w.scales = scales.As<uint16_t>();
  const DeviceMemory x = Bytes(batch * kCols * 2);
  const DeviceMemory y(static_cast<size_t>(batch * kRows * 2));
  const DeviceMemory workspace = Bytes(static_cast<int64_t>(W4A16WorkspaceBytes()));
  Show(Product(std::string("w4a16 ") + Name(format) + " " + Name(type), batch,
               {All(codes), All(scales)}, static_cast<int64_t>(x.bytes())),
       [&] {
         return W4A16MatMul(
             {w, type, x.As(), kCols, y.As(), kRows, batch, workspace.As(), workspace.bytes()},
             nullptr);
       });
}

void Gguf(WeightType type, int64_t batch, bool float32_y) {
  GgufMatrix w{type, kRows, kCols, nullptr};
  const DeviceMemory data = Bytes(GgufBytes(w), 1);
  w.data = data.As<uint8_t>();
  const DeviceMemory x = Bytes(batch * kCols * 2);
  const DeviceMemory y(static_cast<size_t>(batch * kRows * 4));
  GgufMatMulArgs args{w, ActivationType::kF16, x.As(), kCols, y.As(), kRows, batch};
  args.float32_y = float32_y;
  Show(Product(std::string("gguf ") + FindWeightTypeInfo(type)->name + (float32_y ? " f32" : ""),
               batch, {All(data)}, static_cast<int64_t>(x.bytes()), float32_y ? 4 : 2),
       [&] { return GgufMatMul(args, nullptr); });
}

void Dense(ActivationType type, int64_t batch) {
  const DeviceMemory w = Bytes(kRows * kCols * 2);
  const DeviceMemory x = Bytes(batch * kCols * 2);
  const DeviceMemory y(static_cast<size_t>(batch * kRows * 2));
  Show(Product(std::string("gemm ") + Name(type), batch, {All(w)}, static_cast<int64_t>(x.bytes())),
       [&] {
         return Gemm({type, w.As(), kCols, kRows, kCols, x.As(), kCols, y.As(), kRows, batch},
                     nullptr);
       });
}

void W8A8(EightBitType operands, int64_t batch) {
  const DeviceMemory w = Bytes(kRows * kCols);
  const DeviceMemory x = Bytes(batch * kCols);
  const DeviceMemory w_scales = Bytes(kRows * 4);
  const DeviceMemory x_scales = Bytes(batch * 4);
  const DeviceMemory y(static_cast<size_t>(batch * kRows * 2));
  Show(Product(operands == EightBitType::kInt8 ? "w8a8 int8" : "w8a8 e4m3", batch, {All(w)},
               batch * (kCols + 4) + kRows * 4),
       [&] {
         return W8A8MatMul(
             {operands, ActivationType::kF16, w.As(), kCols, w_scales.As<float>(), kRows, kCols,
              x.As(), kCols, x_scales.As<float>(), y.As(), kRows, batch},
             nullptr);
       });
}

// Gates of kExperts experts, each of which `load` tokens chose; a tile takes them all.
void Grouped(WeightType type, int64_t load, int64_t tile) {
  constexpr int64_t kExperts = 4;
  constexpr int64_t kExpertRows = 128;
  const int64_t pairs = kExperts * load;
  std::vector<int32_t> row_pairs(static_cast<size_t>(MoePermuteRows(pairs, kExperts, tile)));
  std::vector<int32_t> offsets(kExperts + 1);
  std::vector<int32_t> ids, pair_rows(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; ++i) ids.push_back(static_cast<int32_t>(i % kExperts));
  ref::MoePermute({ids.data(), pairs, kExperts, tile, row_pairs.data(), pair_rows.data(),
                   offsets.data(), nullptr, 0});
  const DeviceMemory device_rows(row_pairs);
  const DeviceMemory device_offsets(offsets);
  const bool is_dense = type == WeightType::kF16;
  GgufMatrix one{type, kExpertRows, kCols, nullptr};
  const int64_t bytes = kExperts * (is_dense ? kExpertRows * kCols * 2 : GgufBytes(one));
  const DeviceMemory data = Bytes(bytes, 1);
  one.data = data.As<uint8_t>();
  const DeviceMemory x = Bytes(load * kCols * 2);
  const DeviceMemory y(row_pairs.size() * kExpertRows * 2);
  const GroupedMatMulArgs args{device_offsets.As<int32_t>(),
                               device_rows.As<int32_t>(),
                               pairs,
                               kExperts,
                               tile,
                               ActivationType::kF16,
                               x.As(),
                               kCols,
                               kExperts,
                               y.As(),
                               kExpertRows};
  const auto indices = static_cast<int64_t>(device_rows.bytes() + device_offsets.bytes());
  Show({std::string("grouped ") + FindWeightTypeInfo(type)->name,
        std::to_string(kExperts) + "x" + Extents(kExpertRows, kCols),
        load,
        {All(data)},
        {{bytes, bytes + static_cast<int64_t>(x.bytes()) + indices, pairs * kExpertRows * 2}}},
       [&] {
         return is_dense ? GroupedGemm(args, {data.As(), kCols, kExpertRows, kCols}, nullptr)
                         : GroupedGgufMatMul(args, one, nullptr);
       });
}

}  // namespace

void ShowProducts() {
  for (W4Format format : {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1}) {
    for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
      for (int64_t batch : {1, 8, 16, 32, 64}) W4A16(format, type, batch);
    }
  }
  for (int64_t batch : {1, 8, 32}) {
    for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                            WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
      Gguf(type, batch, false);
    }
    Gguf(WeightType::kQ8_0, batch, true);
    Dense(ActivationType::kF16, batch);
    Dense(ActivationType::kBF16, batch);
    W8A8(EightBitType::kInt8, batch);
    W8A8(EightBitType::kE4m3, batch);
  }
  for (WeightType type :
       {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0, WeightType::kQ8_0,
        WeightType::kQ4_K, WeightType::kQ6_K, WeightType::kF16}) {
    Grouped(type, 1, 8);
    Grouped(type, 16, 16);
    Grouped(type, 32, 32);
    Grouped(type, 48, 64);
  }
}

}  // namespace quern::kernels::testing
