// quern-eval: what a model computes, without a server around it: logits, perplexity, speed.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <sstream>

#include "runtime/base/cgroup.h"
#include "runtime/base/clock.h"
#include "runtime/model/scoring.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr int kExitBadInput = 2;

struct CommonOptions {
  std::string model;
  int threads = 0;
  bool as_json = false;
};

struct LogitsOptions {
  std::string tokens_file;
  size_t top = 10;
  std::vector<int32_t> positions;
};

struct BenchOptions {
  std::vector<int> batches = {1, 8};
  int prompt = 128;
  int generate = 64;
};

// A line on stderr that says how far a long run is, from two seconds in; only where somebody
// watches.
class Progress {
 public:
  Progress(std::string what, int64_t total) : what_(std::move(what)), total_(total) {}
  ~Progress() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }
  void Update(int64_t done) {
    const SteadyTime now = RealClock().Now();
    if (isatty(STDERR_FILENO) == 0 || now - start_ < std::chrono::seconds(2) ||
        now - last_ < std::chrono::milliseconds(200)) {
      return;
    }
    last_ = now;
    shown_ = true;
    const double elapsed = Seconds(now - start_).count();
    std::fprintf(
        stderr, "\r\033[K%s: %lld of %lld, about %.0f s left", what_.c_str(),
        static_cast<long long>(done), static_cast<long long>(total_),
        done > 0 ? elapsed * static_cast<double>(total_ - done) / static_cast<double>(done) : 0.0);
  }

 private:
  std::string what_;
  int64_t total_;
  SteadyTime start_ = RealClock().Now();
  SteadyTime last_{};
  bool shown_ = false;
};

struct LoadedModel {
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // where asked for
};

Result<LoadedModel> LoadModel(const CommonOptions& options, bool with_tokenizer) {
  LoadedModel loaded;
  QUERN_ASSIGN(auto file, GgufFile::Open(options.model));
  if (with_tokenizer) {
    QUERN_ASSIGN(loaded.tokenizer, Tokenizer::FromGguf(*file));
  }
  QUERN_ASSIGN(loaded.model, Model::Load(std::move(file), {options.threads}));
  return loaded;
}

Result<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();  // sets failbit when there is nothing to copy: an empty file is its
                            // user's to judge
  if (!file.is_open() || file.bad()) {
    return MakeError(ErrorCode::kNotFound, "{} cannot be read: expected a file", path);
  }
  return content.str();
}

// Ids separated by spaces, commas or newlines; a JSON array is one such.
Result<std::vector<int32_t>> ReadTokens(const std::string& path) {
  QUERN_ASSIGN(std::string text, ReadWholeFile(path));
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == ',' || c == '[' || c == ']'; }, ' ');
  std::stringstream stream(text);
  std::vector<int32_t> tokens;
  for (int32_t token; stream >> token;) tokens.push_back(token);
  if (!stream.eof() || tokens.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: expected token ids separated by spaces, commas or newlines, found {} "
                     "after {} of them",
                     path, stream.eof() ? "the end of the file" : "something else", tokens.size());
  }
  return tokens;
}

Status RunLogits(const CommonOptions& common, const LogitsOptions& options) {
  QUERN_ASSIGN(const std::vector<int32_t> tokens, ReadTokens(options.tokens_file));
  std::vector<bool> wanted;
  for (int32_t position : options.positions) {
    wanted.resize(tokens.size());
    if (position < 0 || static_cast<size_t>(position) >= tokens.size()) {
      return MakeError(ErrorCode::kInvalidArgument, "position {} is not one of the {} tokens",
                       position, tokens.size());
    }
    wanted[static_cast<size_t>(position)] = true;
  }
  QUERN_ASSIGN(const LoadedModel loaded, LoadModel(common, false));
  const KvLayout layout = LayoutFor(static_cast<int64_t>(tokens.size()));
  QUERN_TRY(loaded.model->AllocateKv(layout));

  Progress progress("scoring tokens", static_cast<int64_t>(tokens.size()));
  json positions = json::array();
  QUERN_TRY(ScoreSequence(*loaded.model, layout, tokens, wanted,
                          [&](int32_t position, std::span<const float> logits) {
                            progress.Update(position);
                            json top = json::array();
                            for (const auto& [id, logit] : TopK(logits, options.top)) {
                              top.push_back({id, logit});
                            }
                            positions.push_back({{"position", position},
                                                 {"token", tokens[static_cast<size_t>(position)]},
                                                 {"logsumexp", LogSumExp(logits)},
                                                 {"top", std::move(top)}});
                          }));
  if (common.as_json) {
    std::printf(
        "%s\n",
        json{{"model", loaded.model->info().name}, {"positions", positions}}.dump().c_str());
    return {};
  }
  for (const json& entry : positions) {
    std::printf("%6d  token %-7d  logsumexp %9.4f  next:", entry["position"].get<int>(),
                entry["token"].get<int>(), entry["logsumexp"].get<double>());
    for (const json& pair : entry["top"]) {
      std::printf(" %d (%.3f)", pair[0].get<int>(), pair[1].get<double>());
    }
    std::printf("\n");
  }
  return {};
}

// As llama.cpp's perplexity program does: chunks of 512 tokens, each from an empty context and with
// the beginning-of- sequence token first where the model has one; of each chunk the second half is
// scored.
Status RunPerplexity(const CommonOptions& common, const std::string& text_file) {
  constexpr int32_t kChunk = 512;
  QUERN_ASSIGN(const std::string text, ReadWholeFile(text_file));
  QUERN_ASSIGN(const LoadedModel loaded, LoadModel(common, true));
  QUERN_ASSIGN(std::vector<int32_t> tokens, loaded.tokenizer->Encode(text));
  const size_t chunks = tokens.size() / kChunk;
  if (chunks == 0) {
    return MakeError(ErrorCode::kInvalidArgument, "{} has {} tokens: perplexity needs at least {}",
                     text_file, tokens.size(), kChunk);
  }
  const KvLayout layout = LayoutFor(kChunk);
  QUERN_TRY(loaded.model->AllocateKv(layout));
  std::vector<bool> wanted(kChunk, false);
  std::fill(wanted.begin() + kChunk / 2, wanted.end() - 1, true);

  Progress progress("chunks", static_cast<int64_t>(chunks));
  double sum = 0;
  double squares = 0;
  int64_t count = 0;
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    const std::span<int32_t> part = std::span(tokens).subspan(chunk * kChunk, kChunk);
    if (loaded.tokenizer->adds_bos() && loaded.tokenizer->bos()) part[0] = *loaded.tokenizer->bos();
    QUERN_TRY(ScoreSequence(
        *loaded.model, layout, part, wanted, [&](int32_t position, std::span<const float> logits) {
          const auto next = static_cast<size_t>(part[static_cast<size_t>(position) + 1]);
          const double loss = LogSumExp(logits) - logits[next];
          sum += loss;
          squares += loss * loss;
          ++count;
        }));
    progress.Update(static_cast<int64_t>(chunk) + 1);
  }
  const double mean = sum / static_cast<double>(count);
  const double variance = std::max(0.0, squares / static_cast<double>(count) - mean * mean);
  const double perplexity = std::exp(mean);
  const double error =
      count > 1 ? perplexity * std::sqrt(variance / static_cast<double>(count - 1)) : 0;
  if (common.as_json) {
    std::printf("%s\n", json{{"perplexity", perplexity},
                             {"standard_error", error},
                             {"tokens_scored", count},
                             {"chunks", chunks}}
                            .dump()
                            .c_str());
  } else {
    std::printf("perplexity %.4f +- %.4f over %zu chunks of %d tokens (%lld scored)\n", perplexity,
                error, chunks, kChunk, static_cast<long long>(count));
  }
  return {};
}

// Sequences of equal length that grow together.
class BenchBatch {
 public:
  BenchBatch(const Model& model, int sequences, int capacity, int block_tokens)
      : blocks_(static_cast<size_t>(sequences)), lengths_(static_cast<size_t>(sequences)) {
    const int per_sequence = (capacity + block_tokens - 1) / block_tokens;
    int32_t next = 0;
    for (auto& list : blocks_) {
      list.resize(static_cast<size_t>(per_sequence));
      std::iota(list.begin(), list.end(), next);
      next += per_sequence;
    }
    vocabulary_ = model.info().vocab_size;
  }

  // One step: `rows` new random tokens for each sequence in [first, last), the logits of each one's
  // last.
  Status Step(Model& model, size_t first, size_t last, int32_t rows) {
    std::vector<int32_t> tokens, positions, logit_rows;
    std::vector<ForwardBatch::Sequence> sequences;
    std::uniform_int_distribution<int32_t> any(0, vocabulary_ - 1);
    for (size_t s = first; s < last; ++s) {
      const auto first_row = static_cast<int32_t>(tokens.size());
      for (int32_t i = 0; i < rows; ++i) {
        tokens.push_back(any(random_));
        positions.push_back(lengths_[s] + i);
      }
      lengths_[s] += rows;
      logit_rows.push_back(static_cast<int32_t>(tokens.size()) - 1);
      sequences.push_back({first_row, rows, lengths_[s], blocks_[s]});
    }
    logits_.resize(logit_rows.size() * static_cast<size_t>(vocabulary_));
    return model.Forward({tokens, positions, sequences, logit_rows}, logits_);
  }

  size_t sequences() const { return blocks_.size(); }

 private:
  std::vector<std::vector<int32_t>> blocks_;
  std::vector<int32_t> lengths_;
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
};

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Result<BenchResult> BenchOne(Model& model, const BenchOptions& options, int batch_size) {
  BenchBatch batch(model, batch_size, options.prompt + options.generate, KvLayout().block_tokens);
  const SteadyTime start = RealClock().Now();
  const double cpu_start = CpuSeconds();
  for (size_t s = 0; s < batch.sequences(); ++s) {
    for (int done = 0; done < options.prompt; done += 512) {
      QUERN_TRY(batch.Step(model, s, s + 1, std::min(512, options.prompt - done)));
    }
  }
  const SteadyTime prefilled = RealClock().Now();
  const double cpu_prefilled = CpuSeconds();
  for (int i = 0; i < options.generate; ++i) {
    QUERN_TRY(batch.Step(model, 0, batch.sequences(), 1));
  }
  const double decode_seconds = Seconds(RealClock().Now() - prefilled).count();
  const double cpu_decode_seconds = CpuSeconds() - cpu_prefilled;
  const double prompt_tokens = static_cast<double>(batch_size) * options.prompt;
  const double generated = static_cast<double>(batch_size) * options.generate;
  return BenchResult{prompt_tokens / Seconds(prefilled - start).count(), generated / decode_seconds,
                     prompt_tokens / (cpu_prefilled - cpu_start), generated / cpu_decode_seconds};
}

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
                       {"decode_tokens_per_cpu_second", result.decode_tokens_per_cpu_second}});
    if (!common.as_json) {
      std::printf("batch %d: prefill %.1f tokens/s, decode %.1f tokens/s\n", batch,
                  result.prefill_tokens_per_second, result.decode_tokens_per_second);
    }
  }
  const MemoryUse memory = ProcessMemoryUse();
  if (common.as_json) {
    const json report = {{"model", loaded.model->info().name},
                         {"quantization", loaded.model->info().quantization},
                         {"weight_bytes", loaded.model->info().weight_bytes},
                         {"compute", loaded.model->info().compute},
                         {"load_seconds", load_seconds},
                         {"peak_resident_bytes", memory.peak_resident_bytes},
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

void AddCommon(CLI::App* command, CommonOptions* common) {
  command->add_option("model", common->model, "GGUF file")->required();
  command->add_option("--threads", common->threads, "threads; 0: as many as the CPU quota allows")
      ->check(CLI::Range(0, 128))
      ->capture_default_str();
  command->add_flag("--json", common->as_json, "print JSON on one line");
}

int Main(int argc, char** argv) {
  CLI::App app(
      "Looks at what a model computes: logits, perplexity, speed.\n"
      "The same forward pass as quern-serve, with no server around it.");
  app.footer(
      "Examples:\n"
      "  quern-eval logits model.gguf --tokens ids.txt --top 5\n"
      "  quern-eval perplexity model.gguf wiki.test.raw\n"
      "  quern-eval bench model.gguf --batch 1,8 --prompt 128 --generate 64 --json\n"
      "Exit codes: 0 done, 2 something is wrong with a file or an option (one line says what).\n"
      "QUERN_CPU_ISA=scalar|avx2|avx512 in the environment asks for an instruction set.");
  app.require_subcommand(1);
  CommonOptions common;
  LogitsOptions logits;
  BenchOptions bench;
  std::string text_file;

  auto* logits_command =
      app.add_subcommand("logits", "the most likely next tokens at each position");
  AddCommon(logits_command, &common);
  logits_command->add_option("--tokens", logits.tokens_file, "file of token ids, one sequence")
      ->required();
  logits_command->add_option("--top", logits.top, "how many tokens to list")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  logits_command->add_option("--positions", logits.positions, "only these positions, from 0")
      ->delimiter(',');

  auto* perplexity_command =
      app.add_subcommand("perplexity", "how well the model predicts a text (lower is better)");
  AddCommon(perplexity_command, &common);
  perplexity_command->add_option("file", text_file, "text, UTF-8")->required();

  auto* bench_command =
      app.add_subcommand("bench", "tokens per second of prompts and of generation");
  AddCommon(bench_command, &common);
  bench_command->add_option("--batch", bench.batches, "sequences at once, a run for each")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  bench_command->add_option("--prompt", bench.prompt, "tokens of each prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  bench_command->add_option("--generate", bench.generate, "tokens to generate for each")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitBadInput;
  }
  const Status status = logits_command->parsed()       ? RunLogits(common, logits)
                        : perplexity_command->parsed() ? RunPerplexity(common, text_file)
                                                       : RunBench(common, bench);
  if (status) return 0;
  std::fprintf(stderr, "quern-eval: %s\n", status.error().message.c_str());
  return kExitBadInput;
}

}  // namespace
}  // namespace quern

int main(int argc, char** argv) {
  try {
    return quern::Main(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "quern-eval: not enough memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "quern-eval: %s\n", error.what());
  }
  return quern::kExitBadInput;
}
