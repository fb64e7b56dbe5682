// Schemas, regular expressions and grammars (the first byte picks) -> a constraint or an error, and
// some tokens of it. The library is not instrumented: this finds crashes, hangs and masks that do
// not keep what they promise.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/constraints/constraint_compiler.h"

namespace {

using namespace quern;

constexpr int32_t kEnd = 256;

ConstraintCompiler& Compiler() {
  static const auto compiler = [] {
    ConstraintVocabulary vocabulary{.token_bytes = {}, .end_of_generation = {kEnd}};
    for (int byte = 0; byte < 256; ++byte) {
      vocabulary.token_bytes.emplace_back(1, static_cast<char>(byte));
    }
    vocabulary.token_bytes.emplace_back();
    ConstraintLimits limits;
    limits.compile_fuel = 50'000;
    limits.step_fuel = 20'000;
    limits.step_items = 5'000;
    limits.lexer_states = 2'000;
    limits.grammar_size = 10'000;
    limits.cached = 2;
    return ConstraintCompiler::Create(vocabulary, limits).value();
  }();
  return *compiler;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using Kind = ConstraintSpec::Kind;
  if (size == 0) return 0;
  constexpr std::array kKinds = {Kind::kJsonSchema, Kind::kRegex, Kind::kGrammar};
  const ConstraintSpec spec{.kind = kKinds[data[0] % kKinds.size()],
                            .text = std::string(reinterpret_cast<const char*>(data) + 1, size - 1)};
  auto constraint = Compiler().Compile(spec);
  if (!constraint.ok()) {
    if (constraint.error().message.empty() || constraint.error().message.size() > 1000) abort();
    return 0;
  }
  uint32_t choice = static_cast<uint32_t>(size);
  std::array<uint32_t, MaskWords(257)> mask;
  for (int step = 0; step < 16; ++step) {
    if (!(*constraint)->ComputeMask(mask).ok()) return 0;
    int32_t token = static_cast<int32_t>((choice = choice * 1664525 + 1013904223) >> 8) % 257;
    while (!MaskAllows(mask, static_cast<size_t>(token))) token = (token + 1) % 257;
    if (!(*constraint)->Commit(token).ok()) abort();
    if (token == kEnd) return 0;
  }
  return 0;
}
