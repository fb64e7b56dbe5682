#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "runtime/base/cgroup.h"
#include "runtime/base/clock.h"
#include "runtime/eval.h"
#include "runtime/sampling/sampler.h"

namespace quern {
namespace {

using nlohmann::json;

// Sequences of equal length that grow together.
class BenchBatch {
 public:
  BenchBatch(const Model& model, int sequences, int capacity, int block_tokens)
      : blocks_(static_cast<size_t>(sequences)),
        lengths_(blocks_.size()),
        drawn_(blocks_.size(), -1) {
    const int per_sequence = (capacity + block_tokens - 1) / block_tokens;
    int32_t next = 0;
    for (auto& list : blocks_) {
      list.resize(static_cast<size_t>(per_sequence));
      std::iota(list.begin(), list.end(), next);
      next += per_sequence;
    }
    vocabulary_ = model.info().vocab_size;
  }

  // One step: `rows` new tokens for each sequence in [first, last), the logits of each one's last.
  // They are random ones, or, where `top_k` is not 0, what was drawn from so many of the greatest
  // logits of the step before; the next ones are drawn.
  Status Step(Model& model, size_t first, size_t last, int32_t rows, int32_t top_k) {
    std::vector<int32_t> tokens, positions, logit_rows;
    std::vector<ForwardBatch::Sequence> sequences;
    std::uniform_int_distribution<int32_t> any(0, vocabulary_ - 1);
    for (size_t s = first; s < last; ++s) {
      const auto first_row = static_cast<int32_t>(tokens.size());
      for (int32_t i = 0; i < rows; ++i) {
        tokens.push_back(drawn_[s] >= 0 ? drawn_[s] : any(random_));
        positions.push_back(lengths_[s] + i);
      }
      lengths_[s] += rows;
      logit_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
      sequences.push_back({first_row, rows, lengths_[s], blocks_[s]});
    }
    const auto vocabulary = static_cast<size_t>(vocabulary_);
    logits_.resize(logit_rows.size() * vocabulary);
    ForwardBatch batch{tokens, positions, sequences, logit_rows};
    const std::vector<int32_t> ranks(logit_rows.size(), top_k);
    batch.logit_ranks = ranks;
    QUERN_TRY(model.Forward(batch, logits_));
    if (top_k == 0) return {};
    const SamplingParams params{.top_k = top_k};
    for (size_t s = first; s < last; ++s) {
      const auto row = std::span(logits_).subspan((s - first) * vocabulary, vocabulary);
      QUERN_ASSIGN(drawn_[s], sampler_.Sample(row, params, s, static_cast<uint64_t>(lengths_[s])));
    }
    return {};
  }

  size_t sequences() const { return blocks_.size(); }

 private:
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<int32_t> lengths_;
  std::vector<int32_t> drawn_;  // each one's next token; -1: none was
  Sampler sampler_;
  std::vector<float> logits_;
  int32_t vocabulary_;
  std::mt19937 random_{1};
};

struct BenchResult {
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  // The same by the processors' time over all threads: what a busy machine disturbs least.
  double prefill_tokens_per_cpu_second = 0;
  double decode_tokens_per_cpu_second = 0;
  // Of the output head's bytes, where not all logits were wanted; 1 where all were read.
  double head_read_share = 1;
};

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Result<BenchResult> BenchOne(Model& model, const BenchOptions& options, int batch_size) {
  BenchBatch batch(model, batch_size, options.prompt + options.generate, KvLayout().block_tokens);
  const SteadyTime start = RealClock().Now();
  const double cpu_start = CpuSeconds();
  for (size_t s = 0; s < batch.sequences(); ++s) {
    for (int done = 0; done < options.prompt; done += 512) {
      QUERN_TRY(batch.Step(model, s, s + 1, std::min(512, options.prompt - done), 0));
    }
  }
  const HeadReads reads_before = model.head_reads();
  const SteadyTime prefilled = RealClock().Now();
  const double cpu_prefilled = CpuSeconds();
  for (int i = 0; i < options.generate; ++i) {
    QUERN_TRY(batch.Step(model, 0, batch.sequences(), 1, options.top_k));
  }
  const HeadReads reads = model.head_reads();
  const auto read = static_cast<double>(reads.bytes - reads_before.bytes);
  const auto whole = static_cast<double>(reads.whole_bytes - reads_before.whole_bytes);
  const double decode_seconds = Seconds(RealClock().Now() - prefilled).count();
  const double cpu_decode_seconds = CpuSeconds() - cpu_prefilled;
  const double prompt_tokens = static_cast<double>(batch_size) * options.prompt;
  const double generated = static_cast<double>(batch_size) * options.generate;
  return BenchResult{prompt_tokens / Seconds(prefilled - start).count(), generated / decode_seconds,
                     prompt_tokens / (cpu_prefilled - cpu_start), generated / cpu_decode_seconds,
                     whole > 0 ? read / whole : 1};
}

}  // namespace

Status RunBench(const CommonOptions& common, const BenchOptions& options) {
  const SteadyTime start = RealClock().Now();
  QUERN_ASSIGN(const LoadedModel loaded, LoadModel(common, false));
  const double load_seconds = Seconds(RealClock().Now() - start).count();
  const int largest = *std::max_element(options.batches.begin(), options.batches.end());
  const int blocks =
      (options.prompt + options.generate + KvLayout().block_tokens - 1) / KvLayout().block_tokens;
  QUERN_TRY(loaded.model->AllocateKv({KvLayout().block_tokens, blocks * largest}));
  json results = json::array();
  for (int batch : options.batches) {
    QUERN_ASSIGN(const BenchResult result, BenchOne(*loaded.model, options, batch));
    results.push_back({{"batch", batch},
                       {"prefill_tokens_per_second", result.prefill_tokens_per_second},
                       {"decode_tokens_per_second", result.decode_tokens_per_second},
                       {"prefill_tokens_per_cpu_second", result.prefill_tokens_per_cpu_second},
                       {"decode_tokens_per_cpu_second", result.decode_tokens_per_cpu_second},
                       {"head_read_share", result.head_read_share}});
    if (!common.as_json) {
      std::printf("batch %d: prefill %.1f tokens/s, decode %.1f tokens/s\n", batch,
                  result.prefill_tokens_per_second, result.decode_tokens_per_second);
    }
  }
  const MemoryUse memory = ProcessMemoryUse();
  if (common.as_json) {
    const ModelInfo& info = loaded.model->info();
    const json report = {{"model", info.name},
                         {"parameters", info.parameters},
                         {"head_parameters", int64_t{info.vocab_size} * info.width},
                         {"quantization", info.quantization},
                         {"weight_bytes", info.weight_bytes},
                         {"compute", info.compute},
                         {"load_seconds", load_seconds},
                         {"peak_resident_bytes", memory.peak_resident_bytes},
                         {"top_k", options.top_k},
                         {"results", results}};
    std::printf("%s\n", report.dump().c_str());
  } else {
    std::printf("%s; loaded in %.2f s; weights %.1f MiB, peak resident %.1f MiB\n",
                loaded.model->info().compute.c_str(), load_seconds,
                static_cast<double>(loaded.model->info().weight_bytes) / 1048576.0,
                static_cast<double>(memory.peak_resident_bytes) / 1048576.0);
  }
  return {};
}

}  // namespace quern
