#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/base/clock.h"
#include "runtime/eval.h"
#include "runtime/model/scoring.h"

namespace quern {
namespace {

using nlohmann::json;

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

}  // namespace

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
  const KvLayout layout = LayoutFor(loaded.model->info(), static_cast<int64_t>(tokens.size()));
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
  const KvLayout layout = LayoutFor(loaded.model->info(), kChunk);
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

}  // namespace quern
