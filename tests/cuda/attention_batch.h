#pragma once

#include <numeric>

#include "quern/kernels/attention.h"
#include "quern/kernels/device_attention.h"
#include "tests/cuda/kv_test_support.h"

// A batch of sequences with a paged cache and queries, and what attention over it is in float64.
namespace quern::kernels::testing {

struct AttentionCase {
  ActivationType type;
  DeviceKvFormat format;
  int head_dim, block_tokens, kv_heads, group;
  struct Sequence {
    int queries, context;
  };
  std::vector<Sequence> sequences;
  int window = 0;
  float softcap = 0;
  bool sinks = false;
  float sharpness = 1;  // of the scores: their standard deviation

  std::string Text() const {
    std::string text = std::string(Name(format)) + " " + Name(type) + " head_dim " +
                       std::to_string(head_dim) + " heads " + std::to_string(kv_heads) + "x" +
                       std::to_string(group) + " window " + std::to_string(window) +
                       (softcap > 0 ? " softcap" : "") + (sinks ? " sinks" : "") + " of";
    for (const Sequence& s : sequences) {
      text += " " + std::to_string(s.queries) + "@" + std::to_string(s.context);
    }
    return text;
  }
};

// What is computed with: the bits of the device's inputs. Rows of the cache that no token is in are
// NaN.
struct AttentionBatch {
  const AttentionCase& c;
  HostKv kv;
  std::vector<int32_t> begins{0}, contexts, tables;
  int64_t table_stride = 0, max_queries = 1, max_context = 1;
  int64_t q_stride, queries = 0;
  std::vector<uint16_t> q;
  std::vector<float> sinks;
  float scale;

  AttentionBatch(std::mt19937_64& random, const AttentionCase& of)
      : c(of),
        kv({of.format, of.type, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, Blocks(of),
            of.block_tokens, of.kv_heads, of.head_dim}),
        q_stride((of.kv_heads * of.group) * of.head_dim + 8) {
    std::normal_distribution<float> normal(0, 1);
    for (const auto& s : c.sequences) {
      begins.push_back(begins.back() + s.queries);
      contexts.push_back(s.context);
      max_queries = std::max<int64_t>(max_queries, s.queries);
      max_context = std::max<int64_t>(max_context, s.context);
    }
    queries = begins.back();
    scale = c.sharpness / std::sqrt(static_cast<float>(c.head_dim));
    q.assign(static_cast<size_t>(queries * q_stride), 0xffff);
    for (int64_t row = 0; row < queries; ++row) {
      for (int64_t i = 0; i < q_stride - 8; ++i) {
        q[static_cast<size_t>(row * q_stride + i)] = Round(c.type, normal(random));
      }
    }
    if (c.sinks) {
      for (int i = 0; i < c.kv_heads * c.group; ++i) sinks.push_back(2 * normal(random));
    }
    FillCache(random);
  }

  // Where token `token` of sequence s has its row of K and V.
  int64_t Row(size_t s, int token, int kv_head) const {
    const size_t at =
        s * static_cast<size_t>(table_stride) + static_cast<size_t>(token / c.block_tokens);
    return kv.shape.Row(tables[at], kv_head, token % c.block_tokens);
  }

  static int64_t Blocks(const AttentionCase& c) {
    int64_t blocks = 2;  // one that nothing is in
    for (const auto& s : c.sequences) blocks += (s.context + c.block_tokens - 1) / c.block_tokens;
    return blocks;
  }

  // Blocks in random order; entries of tokens that no query sees, beyond a context or before all
  // windows, are no block.
  void FillCache(std::mt19937_64& random) {
    table_stride = (max_context + c.block_tokens - 1) / c.block_tokens + 1;
    tables.assign(c.sequences.size() * static_cast<size_t>(table_stride), -1);
    std::vector<int32_t> order(static_cast<size_t>(kv.shape.blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    size_t next = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const int oldest = contexts[s] - c.sequences[s].queries - c.window + 1;
      for (int token = c.window > 0 ? std::max(0, oldest) : 0; token < contexts[s]; ++token) {
        int32_t& block = tables[s * static_cast<size_t>(table_stride) +
                                static_cast<size_t>(token / c.block_tokens)];
        if (block < 0) block = order[next++];
        for (int head = 0; head < c.kv_heads; ++head) {
          const int64_t row = kv.shape.Row(block, head, token % c.block_tokens);
          kv.k.Randomize(random, row);
          kv.v.Randomize(random, row);
        }
      }
    }
  }
};

// float64's result for each query head, and what its error bounds need.
struct AttentionTruth {
  std::vector<float> out;        // [queries][heads][head_dim]
  std::vector<float> magnitude;  // the same with |v| in place of v
  float largest_product = 0;     // of sums of |q k|
  float largest_score = 0;
  float largest_value = 0;

  // The scalar reference over the cache's values in float32, which hold them exactly.
  explicit AttentionTruth(AttentionBatch& batch) {
    const AttentionCase& c = batch.c;
    const int64_t rows = batch.kv.shape.rows();
    const int dim = c.head_dim;
    k_.resize(static_cast<size_t>(rows * dim));
    v_ = k_;
    for (int64_t row = 0; row < rows; ++row) {
      const int head = static_cast<int>(row / c.block_tokens % c.kv_heads);
      const std::vector<float> k = batch.kv.k.Read(row, head);
      const std::vector<float> v = batch.kv.v.Read(row, head);
      std::copy(k.begin(), k.end(), k_.begin() + row * dim);
      std::copy(v.begin(), v.end(), v_.begin() + row * dim);
    }
    magnitudes_ = v_;
    for (float& v : magnitudes_) {
      v = std::fabs(v);
      if (v > largest_value) largest_value = v;
    }
    Run(batch, v_, batch.sinks.empty() ? nullptr : batch.sinks.data(), ref::Attention, &out);
    Run(batch, magnitudes_, batch.sinks.empty() ? nullptr : batch.sinks.data(), ref::Attention,
        &magnitude);
    for (int64_t row = 0; row < rows; ++row) {
      float product = 0;
      for (int i = 0; i < dim; ++i) product += std::fabs(k_[static_cast<size_t>(row * dim + i)]);
      if (product > largest_product) largest_product = product;
    }
    float largest_q = 0;
    for (uint16_t bits : batch.q) {
      const float q = std::fabs(Widen(c.type, bits));
      if (q > largest_q) largest_q = q;
    }
    largest_product *= largest_q;
    largest_score = largest_product * batch.scale;
    for (float sink : batch.sinks) largest_score = std::max(largest_score, std::fabs(sink));
  }

  // attend(args, queries, count, sinks) for each query and KV head.
  template <typename AttendFn>
  void Run(const AttentionBatch& batch, const std::vector<float>& values, const float* sinks,
           AttendFn attend, std::vector<float>* result) const {
    const AttentionCase& c = batch.c;
    const int heads = c.kv_heads * c.group;
    result->resize(static_cast<size_t>(batch.queries * heads * c.head_dim));
    PagedKv kv{KvDtype::kF32,
               reinterpret_cast<uint8_t*>(const_cast<float*>(k_.data())),
               reinterpret_cast<uint8_t*>(const_cast<float*>(values.data())),
               c.block_tokens,
               c.kv_heads,
               c.head_dim};
    std::vector<float> q(static_cast<size_t>(c.group * c.head_dim));
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const int count = c.sequences[s].queries;
      for (int i = 0; i < count; ++i) {
        for (int head = 0; head < c.kv_heads; ++head) {
          const int64_t query = batch.begins[s] + i;
          std::vector<AttentionQuery> queries;
          for (int g = 0; g < c.group; ++g) {
            const int64_t at = (head * c.group + g) * c.head_dim;
            for (int d = 0; d < c.head_dim; ++d) {
              q[static_cast<size_t>(g * c.head_dim + d)] =
                  Widen(c.type, batch.q[static_cast<size_t>(query * batch.q_stride + at + d)]);
            }
            queries.push_back({&q[static_cast<size_t>(g * c.head_dim)],
                               &(*result)[static_cast<size_t>(query * heads * c.head_dim + at)],
                               batch.contexts[s] - count + i});
          }
          const AttentionArgs args{
              kv,        &batch.tables[s * static_cast<size_t>(batch.table_stride)],
              head,      batch.scale,
              c.softcap, c.window};
          attend(args, queries.data(), c.group,
                 sinks == nullptr ? nullptr : sinks + head * c.group);
        }
      }
    }
  }
  const std::vector<float>& values() const { return v_; }

 private:
  std::vector<float> k_, v_, magnitudes_;  // [row][head_dim]
};

}  // namespace quern::kernels::testing
