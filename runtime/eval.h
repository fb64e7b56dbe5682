#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/devices.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"

// The commands of quern-eval. Each prints its result to stdout; an error is bad input.
namespace quern {

struct CommonOptions {
  std::string model;
  ModelOptions load;
  Device device;
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
  int top_k =
      0;  // of the logits of each generated token, how many of the greatest are wanted; 0: all
};

struct LimitsOptions {
  int threads = 0;  // 0: as many as the CPU quota allows
  int mib = 512;    // to read: much more than the caches hold
  int runs = 15;
  bool as_json = false;
};

struct LoadedModel {
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;  // where asked for
};

Result<LoadedModel> LoadModel(const CommonOptions& options, bool with_tokenizer);

// The most likely next tokens at each position of a file of token ids.
Status RunLogits(const CommonOptions& common, const LogitsOptions& options);
// Perplexity of a text, as llama.cpp's program computes it.
Status RunPerplexity(const CommonOptions& common, const std::string& text_file);
// Tokens per second of prefill and decode.
Status RunBench(const CommonOptions& common, const BenchOptions& options);
// What this machine reads and computes at most, with all threads.
Status RunLimits(const LimitsOptions& options);

}  // namespace quern
