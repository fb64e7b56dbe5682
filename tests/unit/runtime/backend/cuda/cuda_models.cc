#include "tests/unit/runtime/backend/cuda/cuda_models.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

namespace quern::testing {

TinyModel SmallModel(const char* architecture) {
  TinyModel tiny;
  tiny.architecture = architecture;
  tiny.type = GgmlType::kF16;
  if (tiny.architecture == "gemma3") tiny.layers = 6;
  tiny.width = 64;
  tiny.ffn_width = 64;
  tiny.heads = 2;
  tiny.kv_heads = 1;
  tiny.head_dim = 64;
  tiny.vocab = 70;
  tiny.window = 12;
  tiny.context = 1024;
  return tiny;
}

ModelOnCuda LoadOnCuda(const TinyModel& tiny, const CudaOptions& options, KvDtype kv_dtype) {
  auto backend = CudaBackend::Make(options, {"emulated", "GPU-0"});
  EXPECT_TRUE(backend.ok()) << backend.error().message;
  if (!backend.ok()) return {};
  ModelOnCuda loaded{nullptr, backend->get()};
  auto model = tiny.Load(std::move(*backend), {.threads = 1, .kv_dtype = kv_dtype});
  EXPECT_TRUE(model.ok()) << model.error().message;
  if (!model.ok()) return {};
  loaded.model = std::move(*model);
  return loaded;
}

void StepBatch::Add(std::span<const int32_t> tokens, int32_t rows, std::vector<int32_t> blocks,
                    std::vector<int32_t> window_blocks) {
  const auto context = static_cast<int32_t>(tokens.size());
  const auto first_row = static_cast<int32_t>(tokens_.size());
  for (int32_t position = context - rows; position < context; ++position) {
    all_rows_.push_back(static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(tokens[static_cast<size_t>(position)]);
    positions_.push_back(position);
  }
  sequences_.push_back({first_row, rows, context, {}});
  blocks_.push_back(std::move(blocks));
  blocks_.push_back(std::move(window_blocks));
}

ForwardBatch StepBatch::batch(bool logits, int32_t first_layer, int32_t end_layer) {
  for (size_t s = 0; s < sequences_.size(); ++s) {
    sequences_[s].blocks = blocks_[2 * s];
    sequences_[s].window_blocks = blocks_[2 * s + 1];
  }
  return {tokens_,     positions_,
          sequences_,  logits ? std::span<const int32_t>(all_rows_) : std::span<const int32_t>(),
          first_layer, end_layer};
}

std::vector<float> ForwardAll(Model& model, StepBatch batch) {
  std::vector<float> logits(static_cast<size_t>(batch.rows()) *
                            static_cast<size_t>(model.info().vocab_size));
  const Status status = model.Forward(batch.batch(true), logits);
  EXPECT_TRUE(status.ok()) << status.error().message;
  EXPECT_TRUE(std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }));
  return logits;
}

std::vector<float> RunInChunks(Model& model, std::span<const int32_t> tokens,
                               std::vector<int32_t> blocks, std::span<const int32_t> chunks) {
  std::vector<float> all;
  size_t done = 0;
  for (size_t step = 0; done < tokens.size(); ++step) {
    const size_t left = tokens.size() - done;
    const bool last = step + 1 >= chunks.size();
    const size_t rows = last ? left : std::min(left, static_cast<size_t>(chunks[step]));
    done += rows;
    StepBatch batch;
    batch.Add(tokens.first(done), static_cast<int32_t>(rows), blocks);
    const std::vector<float> logits = ForwardAll(model, std::move(batch));
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<int32_t> RandomTokens(std::mt19937& random, int count, int vocabulary) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
  }
  return tokens;
}

std::vector<int32_t> BlocksFrom(int32_t from, int32_t count) {
  std::vector<int32_t> blocks(static_cast<size_t>(count));
  std::iota(blocks.begin(), blocks.end(), from);
  return blocks;
}

}  // namespace quern::testing
