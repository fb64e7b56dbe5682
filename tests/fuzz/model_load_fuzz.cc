// Any bytes as a model file: everything that quern-serve does with one before it serves, and a
// request's worth of it after. An error, or a tokenizer, a template and a model that work.
#include <spdlog/spdlog.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "runtime/model/model.h"
#include "runtime/tokenizer/chat_template.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"

namespace {

using quern::ForwardBatch;

void Tokenize(const quern::GgufFile& file) {
  auto tokenizer = quern::Tokenizer::FromGguf(file);
  if (!tokenizer) return;
  for (const char* text : {"\u00e9 ab a\n<a>\u4e16\U0001f600</a> aab", "\u00ff<s>  1234 don't"}) {
    for (const bool special : {false, true}) {
      const auto ids = (*tokenizer)->Encode(text, {.add_special = true, .parse_special = special});
      if (!ids) continue;
      for (const quern::TokenId id : *ids) {
        if (id < 0 || id >= (*tokenizer)->vocab_size()) std::abort();
        (void)(*tokenizer)->IsEndOfGeneration(id);
      }
      if (quern::FindInvalidUtf8((*tokenizer)->Decode(*ids, true))) std::abort();
    }
  }
}

void RenderChat(const quern::GgufFile& file) {
  static const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", " Hi \u00e9\n"}}};
  const auto source = quern::ChatTemplateSourceOf(file);
  if (!source) return;
  if (auto chat = quern::ChatTemplate::Make(*source))
    (void)(*chat)->Render({.messages = messages, .tools = nullptr}).ok();
}

// A prompt of three tokens, then another of two beside the first one's next token.
void RunSteps(quern::Model& model) {
  const int32_t vocabulary = model.info().vocab_size;
  // The engine's plan keeps the logits of a step within memory; here they must be small.
  if (vocabulary > 1 << 20 || !model.AllocateKv({.block_tokens = 2, .num_blocks = 4})) return;
  const std::array<int32_t, 2> one = {3, 1};
  const std::array<int32_t, 2> other = {0, 2};
  const std::array<int32_t, 3> tokens = {0, vocabulary / 2, vocabulary - 1};
  std::vector<float> logits(static_cast<size_t>(vocabulary) * 3);
  {
    const std::array<int32_t, 3> positions = {0, 1, 2};
    const std::array<ForwardBatch::Sequence, 1> sequences = {{{0, 3, 3, one}}};
    const std::array<int32_t, 2> rows = {0, 2};
    if (!model.Forward({tokens, positions, sequences, rows}, logits)) return;
  }
  const std::array<int32_t, 3> positions = {3, 0, 1};
  const std::array<ForwardBatch::Sequence, 2> sequences = {{{0, 1, 4, one}, {1, 2, 2, other}}};
  const std::array<int32_t, 3> rows = {0, 1, 2};
  (void)model.Forward({tokens, positions, sequences, rows}, logits).ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = [] {
    spdlog::set_level(spdlog::level::off);
    return true;
  }();
  (void)quiet;
  auto file = quern::GgufFile::Parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file) return 0;
  Tokenize(**file);
  RenderChat(**file);
  // The plain kernels on every other size of file: they are the ones that UBSan sees through.
  setenv("QUERN_CPU_ISA", size % 2 == 0 ? "" : "scalar", 1);
  if (auto model = quern::Model::Load(std::move(*file), {.threads = 1})) RunSteps(**model);
  return 0;
}
