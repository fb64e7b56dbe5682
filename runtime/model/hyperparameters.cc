#include "runtime/model/hyperparameters.h"

#include <algorithm>
#include <cmath>

#include "runtime/backend/backend.h"
#include "runtime/formats/file_signature.h"

namespace quern {
namespace {

// Beyond any model there is; keeps products of sizes far from overflow.
constexpr uint64_t kLargest = 1 << 24;
constexpr double kLargestNumber = 1e30;

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file) {}

  std::string Key(std::string_view name) const { return fmt::format("{}.{}", architecture_, name); }
  void set_architecture(std::string name) { architecture_ = std::move(name); }

  Result<int> Size(std::string_view name) const {
    // Some models give one value for every layer; those that differ between layers are not
    // supported.
    const uint64_t most = std::max<uint64_t>(file_.tensors().size(), 1);  // layers there may be
    if (const auto values = file_.FindIntArray(Key(name), most); values && !values->empty()) {
      for (int64_t value : *values) {
        if (value != values->front()) {
          return MakeError(ErrorCode::kUnsupported,
                           "metadata {} differs between layers, which is not supported", Key(name));
        }
      }
      return Checked(name, values->front() < 0 ? 0 : static_cast<uint64_t>(values->front()));
    }
    QUERN_ASSIGN(const uint64_t value, file_.RequireUint(Key(name)));
    return Checked(name, value);
  }

  Result<int> SizeOr(std::string_view name, int fallback) const {
    if (!file_.Has(Key(name))) return fallback;
    return Size(name);
  }

  Result<uint64_t> UintOr(std::string_view name, uint64_t fallback) const {
    if (!file_.Has(Key(name))) return fallback;
    return file_.RequireUint(Key(name));
  }

  Result<double> NumberOr(std::string_view name, double fallback) const {
    if (!file_.Has(Key(name))) return fallback;
    QUERN_ASSIGN(const double value, file_.RequireFloat(Key(name)));
    if (!(value >= 0 && value <= kLargestNumber)) {
      return MakeError(ErrorCode::kDataLoss, "metadata {} is {}: expected a number from 0 to {:g}",
                       Key(name), value, kLargestNumber);
    }
    return value;
  }

 private:
  Result<int> Checked(std::string_view name, uint64_t value) const {
    if (value < 1 || value > kLargest) {
      return MakeError(ErrorCode::kDataLoss, "metadata {} is {}: expected 1 to {}", Key(name),
                       value, kLargest);
    }
    return static_cast<int>(value);
  }

  const GgufFile& file_;
  std::string architecture_;
};

Status ReadRope(const GgufFile& file, const Reader& reader, Hyperparameters* h) {
  QUERN_ASSIGN(h->rope_dims, reader.SizeOr("rope.dimension_count", h->head_dim));
  QUERN_ASSIGN(h->rope_base, reader.NumberOr("rope.freq_base", 10000));
  if (h->rope_dims % 2 != 0 || h->rope_dims > h->head_dim || h->rope_base <= 0) {
    return MakeError(ErrorCode::kDataLoss,
                     "RoPE of {} dimensions with base {}: expected an even number up to the head's "
                     "{} and a positive base",
                     h->rope_dims, h->rope_base, h->head_dim);
  }
  const auto type = file.FindString(reader.Key("rope.scaling.type"));
  if (type && *type != "none" && *type != "linear") {
    return MakeError(ErrorCode::kUnsupported,
                     "RoPE scaling '{}' is not supported; supported: none, linear",
                     Printable(*type));
  }
  if (type && *type == "linear") {
    QUERN_ASSIGN(h->rope_linear_factor, reader.NumberOr("rope.scaling.factor", 1));
    if (h->rope_linear_factor <= 0) h->rope_linear_factor = 1;
  }
  return {};
}

// What would change a mixture of experts, and is not known here.
Status RefuseOtherExperts(const Reader& reader) {
  struct {
    const char* key;
    uint64_t most;
    const char* expected;
  } constexpr kLimits[] = {
      {"expert_shared_count", 0, "no shared experts"},
      {"expert_shared_feed_forward_length", 0, "no shared experts"},
      {"expert_group_count", 1, "experts in one group"},
      {"expert_gating_func", 1, "softmax (1)"},
  };
  for (const auto& limit : kLimits) {
    QUERN_ASSIGN(const uint64_t value, reader.UintOr(limit.key, 0));
    if (value <= limit.most) continue;
    return MakeError(ErrorCode::kUnsupported,
                     "metadata {} is {}, which is not supported: expected {}",
                     reader.Key(limit.key), value, limit.expected);
  }
  return {};
}

Status ReadExperts(const GgufFile& file, const Reader& reader, Hyperparameters* h) {
  QUERN_ASSIGN(const uint64_t experts, reader.UintOr("expert_count", 0));
  if (experts == 0) return {};
  if (experts > kernels::kMaxRoutedExperts) {
    return MakeError(ErrorCode::kUnsupported, "metadata {} is {}: at most {} are supported",
                     reader.Key("expert_count"), experts, kernels::kMaxRoutedExperts);
  }
  h->experts = static_cast<int>(experts);
  QUERN_ASSIGN(h->experts_used, reader.Size("expert_used_count"));
  const int most = std::min(h->experts, static_cast<int>(kernels::kMaxChosenExperts));
  if (h->experts_used > most) {
    return MakeError(h->experts_used > h->experts ? ErrorCode::kDataLoss : ErrorCode::kUnsupported,
                     "metadata {} is {}: expected 1 to {}, of {} experts",
                     reader.Key("expert_used_count"), h->experts_used, most, h->experts);
  }
  QUERN_ASSIGN(h->expert_ffn_width, reader.Size("expert_feed_forward_length"));
  QUERN_TRY(RefuseOtherExperts(reader));
  h->expert_weights_sum_to_one =
      file.FindBool(reader.Key("expert_weights_norm")).value_or(h->expert_weights_sum_to_one);
  QUERN_ASSIGN(const double scale, reader.NumberOr("expert_weights_scale", 0));
  if (scale != 0) h->expert_weights_scale = static_cast<float>(scale);  // 0, as llama.cpp: none
  return {};
}

// llama.cpp's numbers: 0 none, 1 mean, 2 the first token's, 3 the last's, 4 a rank. A model that
// generates says nothing, and what its last token has seen is all of the text.
Result<std::optional<Pooling>> ReadPooling(const Reader& reader) {
  QUERN_ASSIGN(const uint64_t type, reader.UintOr("pooling_type", 0));
  if (type == 1) return std::optional(Pooling::kMean);
  if (type == 0 || type == 3) return std::optional(Pooling::kLast);
  return std::optional<Pooling>();
}

}  // namespace

Result<Hyperparameters> ReadHyperparameters(const GgufFile& file) {
  Hyperparameters h;
  Reader reader(file);
  QUERN_ASSIGN(const std::string_view architecture, file.RequireString("general.architecture"));
  h.architecture = architecture;
  reader.set_architecture(h.architecture);
  QUERN_ASSIGN(h.layers, reader.Size("block_count"));
  // Before anything is allocated for each layer: all of them have tensors.
  if (static_cast<uint64_t>(h.layers) > file.tensors().size()) {
    return MakeError(ErrorCode::kDataLoss,
                     "metadata {} is {}, but the file has only {} tensors: expected at least one "
                     "for each layer",
                     reader.Key("block_count"), h.layers, file.tensors().size());
  }
  QUERN_ASSIGN(h.width, reader.Size("embedding_length"));
  QUERN_ASSIGN(h.ffn_width, reader.Size("feed_forward_length"));
  QUERN_ASSIGN(h.context_tokens, reader.Size("context_length"));
  QUERN_ASSIGN(h.heads, reader.Size("attention.head_count"));
  QUERN_ASSIGN(h.kv_heads, reader.SizeOr("attention.head_count_kv", h.heads));
  if (h.heads % h.kv_heads != 0) {
    return MakeError(ErrorCode::kDataLoss,
                     "{} attention heads cannot share {} KV heads: expected a multiple", h.heads,
                     h.kv_heads);
  }
  QUERN_ASSIGN(h.head_dim, reader.SizeOr("attention.key_length", h.width / h.heads));
  QUERN_ASSIGN(const int value_dim, reader.SizeOr("attention.value_length", h.head_dim));
  if (value_dim != h.head_dim || h.head_dim < 1 || h.head_dim > 4096) {
    return MakeError(ErrorCode::kUnsupported,
                     "heads with keys of {} and values of {} elements are not supported: expected "
                     "the same, up to 4096",
                     h.head_dim, value_dim);
  }
  // Rows of queries, keys and values are indexed with int; there are at most as many KV heads.
  if (static_cast<uint64_t>(h.heads) * static_cast<uint64_t>(h.head_dim) > kLargest) {
    return MakeError(ErrorCode::kDataLoss,
                     "{} attention heads of {} elements make {}: expected at most {}", h.heads,
                     h.head_dim, int64_t{h.heads} * h.head_dim, kLargest);
  }
  QUERN_ASSIGN(const double epsilon, reader.NumberOr("attention.layer_norm_rms_epsilon", 1e-5));
  h.epsilon = static_cast<float>(epsilon);
  QUERN_ASSIGN(const double logit_cap, reader.NumberOr("final_logit_softcapping", 0));
  h.logit_softcap = static_cast<float>(logit_cap);
  QUERN_ASSIGN(const double attention_cap, reader.NumberOr("attn_logit_softcapping", 0));
  h.attention_softcap = static_cast<float>(attention_cap);
  QUERN_ASSIGN(h.window, reader.SizeOr("attention.sliding_window", 0));
  QUERN_TRY(ReadExperts(file, reader, &h));
  QUERN_ASSIGN(h.pooling, ReadPooling(reader));
  QUERN_TRY(ReadRope(file, reader, &h));

  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->dims.size() != 2) {
    return MakeError(ErrorCode::kDataLoss,
                     "tensor token_embd.weight is missing or not a matrix: a language model needs "
                     "its embedding table");
  }
  if (embedding->dims[1] < 1 || embedding->dims[1] > kLargest) {
    return MakeError(ErrorCode::kDataLoss, "tensor token_embd.weight has {} rows: expected 1 to {}",
                     embedding->dims[1], kLargest);
  }
  h.vocab_size = static_cast<int>(embedding->dims[1]);
  return h;
}

std::vector<double> RopeFrequencies(double base, int dims, double linear_factor,
                                    const std::vector<float>& factors) {
  std::vector<double> frequencies;
  for (int i = 0; i < dims / 2; ++i) {
    const double factor = factors.empty() ? 1.0 : factors[static_cast<size_t>(i)];
    frequencies.push_back(std::pow(base, -2.0 * i / dims) / linear_factor / factor);
  }
  return frequencies;
}

}  // namespace quern
