#include <algorithm>
#include <numeric>

#include "kernels/cuda/attention/attention_launch.h"
#include "quern/kernels/append_kv.h"
#include "quern/kernels/device_attention.h"
#include "quern/kernels/rotate_heads.h"
#include "tests/cuda/kv_test_support.h"
#include "tests/unit/kernels/simt/kernel_traffic.h"

// Attention of one sequence, its bulk the cache that the queries see; and the append.
namespace quern::kernels::testing {
namespace {

// A model's heads, two of its KV heads: the others do the same.
struct Heads {
  const char* model;
  int head_dim;
  int group;
  bool sinks;
  bool norm;
};
constexpr Heads kModels[] = {{"llama-3-8b", 128, 4, false, false},
                             {"gemma-3-4b", 256, 2, false, true},
                             {"gpt-oss-20b", 64, 8, true, false}};
constexpr int kKvHeads = 2;
constexpr int kBlockTokens = 16;

// A cache of ones, or of codes of 1.
struct Cache {
  DeviceKv kv;
  DeviceMemory k, v, k_scales, v_scales, head_scales;

  Cache(DeviceKvFormat format, int head_dim, int64_t blocks)
      : kv{format, ActivationType::kF16, nullptr,  nullptr, nullptr, nullptr, nullptr, nullptr,
           blocks, kBlockTokens,         kKvHeads, head_dim},
        k(Bytes(kv.rows() * DeviceKvRowBytes(DeviceKeyFormat(format), head_dim), 1)),
        v(Bytes(kv.rows() * DeviceKvRowBytes(format, head_dim), 1)),
        k_scales(Bytes(kv.rows() * head_dim / kKvGroup * 2, 0x3c)),
        v_scales(Bytes(kv.rows() * head_dim / kKvGroup * 2, 0x3c)),
        head_scales(std::vector<float>(kKvHeads, 1)) {
    kv.k = k.As();
    kv.v = v.As();
    if (HasGroupScales(format)) {
      kv.k_scales = k_scales.As<uint16_t>();
      kv.v_scales = v_scales.As<uint16_t>();
    } else if (format == DeviceKvFormat::kE4m3) {
      kv.k_head_scales = kv.v_head_scales = head_scales.As<float>();
    }
  }
  std::vector<simt::Range> Ranges() const {
    std::vector<simt::Range> ranges = {All(k), All(v)};
    if (HasGroupScales(kv.format)) ranges.insert(ranges.end(), {All(k_scales), All(v_scales)});
    return ranges;
  }
};

void Attention(bool decode, const Heads& heads, DeviceKvFormat format, int queries, int context,
               int window) {
  const int blocks = (context + kBlockTokens - 1) / kBlockTokens;
  const Cache cache(format, heads.head_dim, blocks);
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.rbegin(), table.rend(), 0);
  const DeviceMemory tables(table);
  const DeviceMemory begins(std::vector<int32_t>{0, queries});
  const DeviceMemory contexts(std::vector<int32_t>{context});
  const int q_heads = kKvHeads * heads.group;
  const int64_t width = int64_t{q_heads} * heads.head_dim;
  const DeviceMemory sinks(std::vector<float>(static_cast<size_t>(q_heads), 0.5f));
  const DeviceMemory q = Bytes(queries * width * 2);
  const DeviceMemory out(static_cast<size_t>(queries * width * 2));
  DeviceAttentionArgs args{ActivationType::kF16,
                           q.As(),
                           width,
                           out.As(),
                           width,
                           q_heads,
                           cache.kv,
                           begins.As<int32_t>(),
                           contexts.As<int32_t>(),
                           tables.As<int32_t>(),
                           blocks,
                           1,
                           queries,
                           context,
                           0.1f,
                           0,
                           window,
                           heads.sinks ? sinks.As<float>() : nullptr};
  args.workspace_size = decode ? DecodeAttentionWorkspaceBytes(args) : 0;
  const DeviceMemory workspace(args.workspace_size + 16);
  args.workspace = workspace.As();
  const int seen = window == 0 ? context : std::min(context, window + queries - 1);
  const int64_t bulk = int64_t{seen} * kKvHeads * DeviceKvTokenBytes(format, heads.head_dim);
  const auto q_bytes = static_cast<int64_t>(q.bytes());
  // Of each split: a head's sums, their largest score and sum of weights.
  const int64_t parts = int64_t{SplitCount(seen)} * queries * q_heads * (heads.head_dim + 2) * 4;
  const bool split = decode && SplitCount(seen) > 1;
  Operation operation{std::string(decode ? "decode " : "prefill ") + Name(format),
                      std::string(heads.model) + ", " + std::to_string(context) + " tokens" +
                          (window == 0 ? "" : ", window " + std::to_string(window)),
                      queries,
                      cache.Ranges(),
                      {{bulk, bulk + q_bytes, split ? parts : q_bytes}}};
  if (split) operation.launches.push_back({0, parts, q_bytes});
  Show(operation,
       [&] { return decode ? DecodeAttention(args, nullptr) : PrefillAttention(args, nullptr); });
}

void Append(const Heads& heads, DeviceKvFormat format, int64_t tokens) {
  const Cache cache(format, heads.head_dim, 1);
  const int q_heads = kKvHeads * heads.group;
  const int64_t width = int64_t{q_heads} * heads.head_dim;
  const int64_t row = width + 2 * kKvHeads * heads.head_dim;
  const DeviceMemory qkv = Bytes(tokens * row * 2, 1);
  const DeviceMemory q(static_cast<size_t>(tokens * width * 2));
  const DeviceMemory norms(std::vector<float>(static_cast<size_t>(heads.head_dim), 1));
  const DeviceMemory frequencies(std::vector<double>(static_cast<size_t>(heads.head_dim / 2), 0.1));
  const DeviceMemory positions(std::vector<int32_t>(static_cast<size_t>(tokens), 7));
  std::vector<int64_t> order(static_cast<size_t>(tokens));
  std::iota(order.begin(), order.end(), 0);
  const DeviceMemory places(order);
  const AppendKvArgs args{ActivationType::kF16,
                          qkv.As(),
                          row,
                          q.As(),
                          width,
                          tokens,
                          q_heads,
                          heads.norm ? norms.As<float>() : nullptr,
                          heads.norm ? norms.As<float>() : nullptr,
                          1e-6f,
                          RopePairs::kHalves,
                          heads.head_dim,
                          frequencies.As<double>(),
                          positions.As<int32_t>(),
                          HasGroupScales(format),
                          places.As<int64_t>(),
                          cache.kv};
  const auto qkv_bytes = static_cast<int64_t>(qkv.bytes());
  const int64_t others = heads.head_dim * (heads.norm ? 8 : 4) + tokens * 12;
  const int64_t written =
      tokens * (width * 2 + kKvHeads * DeviceKvTokenBytes(format, heads.head_dim));
  Show({std::string("append ") + Name(format),
        heads.model,
        tokens,
        {All(qkv)},
        {{qkv_bytes, qkv_bytes + others, written}}},
       [&] { return AppendKv(args, nullptr); });
}

void Rotate(const Heads& heads, int64_t tokens) {
  const int q_heads = kKvHeads * heads.group;
  const int64_t width = int64_t{q_heads} * heads.head_dim;
  const DeviceMemory x = Bytes(tokens * width * 2, 1);
  const DeviceMemory out(x.bytes());
  const auto bytes = static_cast<int64_t>(x.bytes());
  Show({"rotate heads", heads.model, tokens, {All(x)}, {{bytes, bytes, bytes}}}, [&] {
    return RotateHeads(
        {ActivationType::kF16, tokens, q_heads, heads.head_dim, x.As(), width, out.As(), width},
        nullptr);
  });
}

}  // namespace

void ShowAttention() {
  for (const Heads& heads : kModels) {
    for (DeviceKvFormat format : kKvFormats) {
      Attention(true, heads, format, 1, 250, 0);
      Attention(false, heads, format, 64 / heads.group, 250, 0);  // the rows of one thread block
      Append(heads, format, 4);
    }
    Rotate(heads, 4);
    Attention(true, heads, DeviceKvFormat::k16Bit, 1, 1000, 0);  // four splits
  }
  Attention(true, kModels[2], DeviceKvFormat::k16Bit, 1, 1000, 128);
}

}  // namespace quern::kernels::testing
