#include "quern/kernels/add_rms_norm.h"
#include "quern/kernels/embedding_gather.h"
#include "quern/kernels/gated_product.h"
#include "quern/kernels/gguf_gather.h"
#include "quern/kernels/quantize_rows.h"
#include "quern/kernels/select_rows.h"
#include "quern/kernels/softcap_logits.h"
#include "tests/unit/kernels/simt/kernel_traffic.h"

// Embeddings, norms and gates of a few tokens: the bulk is what there is of each token.
namespace quern::kernels::testing {
namespace {

constexpr int64_t kTokens = 4;
constexpr int64_t kVocab = 64;

const DeviceMemory& Ids() {
  static const DeviceMemory ids(std::vector<int32_t>{40, 3, 17, 63});
  return ids;
}

void Gather(int64_t hidden) {
  const DeviceMemory table = Bytes(kVocab * hidden * 2, 1);
  const DeviceMemory out(static_cast<size_t>(kTokens * hidden * 4));
  const int64_t bulk = kTokens * hidden * 2;
  Show({"gather bf16",
        std::to_string(hidden),
        kTokens,
        {All(table)},
        {{bulk, bulk + kTokens * 4, kTokens * hidden * 4}}},
       [&] {
         return EmbeddingGather({ActivationType::kBF16, table.As(), hidden, kVocab, hidden,
                                 Ids().As<int32_t>(), kTokens, 1, out.As<float>(), hidden},
                                nullptr);
       });
}

void Gather(WeightType type, int64_t hidden) {
  GgufMatrix table{type, kVocab, hidden, nullptr};
  const DeviceMemory data = Bytes(GgufBytes(table), 1);
  table.data = data.As<uint8_t>();
  const DeviceMemory out(static_cast<size_t>(kTokens * hidden * 4));
  const int64_t bulk = kTokens * GgufBytes(table) / kVocab;
  Show({std::string("gather ") + FindWeightTypeInfo(type)->name,
        std::to_string(hidden),
        kTokens,
        {All(data)},
        {{bulk, bulk + kTokens * 4, kTokens * hidden * 4}}},
       [&] {
         return GgufGather({table, Ids().As<int32_t>(), kTokens, 1, out.As<float>(), hidden},
                           nullptr);
       });
}

void Norm(const char* name, int64_t hidden, bool norm_of_x, NormOutput output) {
  const DeviceMemory residual = Bytes(kTokens * hidden * 4);
  const DeviceMemory x = Bytes(kTokens * hidden * 2);
  const DeviceMemory weights = Bytes(hidden * 4);
  const DeviceMemory x_weights = Bytes(hidden * 4);
  const DeviceMemory y(static_cast<size_t>(kTokens * hidden * 2));
  const DeviceMemory scale(kTokens * 4);
  const bool quantised = output != NormOutput::kActivation;
  const int64_t bulk = kTokens * hidden * 6;
  Show({std::string("norm ") + name,
        std::to_string(hidden),
        kTokens,
        {All(residual), All(x)},
        {{bulk, bulk + hidden * (norm_of_x ? 8 : 4),
          kTokens * (hidden * (quantised ? 5 : 6) + (quantised ? 4 : 0))}}},
       [&] {
         return AddRmsNorm(
             {ActivationType::kBF16, kTokens, hidden, 1e-6f, residual.As<float>(), hidden, x.As(),
              hidden, norm_of_x ? x_weights.As<float>() : nullptr, weights.As<float>(), output,
              y.As(), hidden, quantised ? scale.As<float>() : nullptr},
             nullptr);
       });
}

void Gates(const char* name, Gate gate, int64_t inner, bool turns, RowOutput output) {
  const bool quantised = output != RowOutput::kActivation;
  const DeviceMemory x = Bytes(kTokens * inner * 4);
  const DeviceMemory y(static_cast<size_t>(kTokens * inner * 2));
  const DeviceMemory scale(kTokens * 4);
  const auto bulk = static_cast<int64_t>(x.bytes());
  Show({std::string("gates ") + name,
        std::to_string(inner),
        kTokens,
        {All(x)},
        {{bulk, bulk, kTokens * (quantised ? inner + 4 : inner * 2)}}},
       [&] {
         return GatedProduct({gate, ActivationType::kBF16, kTokens, inner, x.As(), 2 * inner,
                              turns ? nullptr : x.As<uint16_t>() + inner, 2 * inner, y.As(), inner,
                              output, quantised ? scale.As<float>() : nullptr},
                             nullptr);
       });
}

void Quantize(const char* name, int64_t width, RowOutput output) {
  const DeviceMemory x = Bytes(kTokens * width * 2);
  const DeviceMemory y(static_cast<size_t>(kTokens * width));
  const DeviceMemory scale(kTokens * 4);
  const auto bulk = static_cast<int64_t>(x.bytes());
  Show({std::string("quantise ") + name,
        std::to_string(width),
        kTokens,
        {All(x)},
        {{bulk, bulk, kTokens * (width + 4)}}},
       [&] {
         return QuantizeRows({ActivationType::kBF16, kTokens, width, x.As(), width, output, y.As(),
                              width, scale.As<float>()},
                             nullptr);
       });
}

void Select(int64_t width) {
  const DeviceMemory x = Bytes(kVocab * width * 4);
  const DeviceMemory out(static_cast<size_t>(kTokens * width * 4));
  const int64_t bulk = kTokens * width * 4;
  Show(
      {"select rows", std::to_string(width), kTokens, {All(x)}, {{bulk, bulk + kTokens * 4, bulk}}},
      [&] {
        return SelectRows({x.As<float>(), kVocab, width, Ids().As<int32_t>(), kTokens, width,
                           out.As<float>(), width},
                          nullptr);
      });
}

void Softcap(int64_t vocab) {
  const DeviceMemory y = Bytes(kTokens * vocab * 4);
  const auto bulk = static_cast<int64_t>(y.bytes());
  Show({"softcap", std::to_string(vocab), kTokens, {All(y)}, {{bulk, bulk, bulk}}}, [&] {
    return SoftcapLogits({30, kTokens * vocab, y.As<float>()}, nullptr);
  });
}

}  // namespace

void ShowElementwise() {
  Gather(4096);
  for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                          WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
    Gather(type, 2560);
  }
  Norm("bf16", 4096, false, NormOutput::kActivation);
  Norm("int8", 4096, false, NormOutput::kInt8);
  Norm("e4m3", 4096, false, NormOutput::kE4m3);
  Norm("of x, bf16", 2560, true, NormOutput::kActivation);
  Norm("bf16", 640, false, NormOutput::kActivation);
  for (const auto& [name, output] :
       {std::pair{"", RowOutput::kActivation}, {" int8", RowOutput::kInt8}}) {
    const auto gates = [&, output = output](const std::string& of, Gate gate, int64_t inner,
                                            bool turns) {
      Gates((of + name).c_str(), gate, inner, turns, output);
    };
    gates("silu", Gate::kSilu, 14336, false);
    gates("gelu", Gate::kGeluTanh, 10240, false);
    gates("clamped, in turns", Gate::kSiluClamped, 2880, true);
  }
  Gates("silu e4m3", Gate::kSilu, 14336, false, RowOutput::kE4m3);
  Quantize("int8", 4096, RowOutput::kInt8);
  Quantize("e4m3", 4096, RowOutput::kE4m3);
  Select(4096);
  Softcap(16384);
}

}  // namespace quern::kernels::testing
