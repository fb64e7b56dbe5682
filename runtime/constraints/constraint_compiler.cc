#include "runtime/constraints/constraint_compiler.h"

#include <llguidance.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace quern {
namespace {

// The library reads a token that begins with this byte as a special token's name. It is in no UTF-8
// text: a byte token of it can be left out.
constexpr char kSpecialMarker = '\xff';

// Bounded, as a model may otherwise write blanks for ever, and still what json.dumps writes with an
// indentation.
constexpr char kJsonObject[] =
    R"({"type":"object","x-guidance":{"whitespace_pattern":"[ \\t\\n\\r]{1,20}"}})";

Status CheckVocabulary(const ConstraintVocabulary& vocabulary) {
  const size_t size = vocabulary.token_bytes.size();
  if (size == 0 || size > std::numeric_limits<int32_t>::max()) {
    return MakeError(ErrorCode::kInvalidArgument, "a vocabulary of {} tokens cannot be constrained",
                     size);
  }
  if (vocabulary.end_of_generation.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the vocabulary has no end-of-generation token: an answer could not end");
  }
  for (const int32_t id : vocabulary.end_of_generation) {
    if (id < 0 || static_cast<size_t>(id) >= size) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the end-of-generation token {} is outside the vocabulary of {}", id, size);
    }
  }
  return {};
}

// With the bounded white space of kJsonObject, unless the schema brings its own. Keeps the order of
// members, which is the order of the answer's.
Result<std::string> WithWhitespace(const std::string& schema) {
  auto parsed = nlohmann::ordered_json::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) {
    return MakeError(ErrorCode::kInvalidArgument, "the JSON schema is not valid JSON");
  }
  if (parsed.is_boolean()) return schema;
  if (!parsed.is_object()) {
    return MakeError(ErrorCode::kInvalidArgument, "the JSON schema must be an object");
  }
  if (parsed.contains("x-guidance")) return schema;
  parsed["x-guidance"] = {{"whitespace_pattern", "[ \\t\\n\\r]{1,20}"}};
  return parsed.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

LlgConstraintInit InitOf(const LlgTokenizer* tokenizer, const ConstraintLimits& limits) {
  LlgConstraintInit init = {};
  llg_constraint_init_set_defaults(&init, tokenizer);
  init.log_buffer_level = 0;
  init.log_stderr_level = 0;
  init.limits.initial_lexer_fuel = limits.compile_fuel;
  init.limits.step_lexer_fuel = limits.step_fuel;
  init.limits.step_max_items = limits.step_items;
  init.limits.max_items_in_row = limits.items_in_row;
  init.limits.max_lexer_states = limits.lexer_states;
  init.limits.max_grammar_size = limits.grammar_size;
  init.limits.precompute_large_lexemes = true;
  init.limits.verbose_errors = false;
  return init;
}

}  // namespace

Result<std::unique_ptr<ConstraintCompiler>> ConstraintCompiler::Create(
    const ConstraintVocabulary& vocabulary, const ConstraintLimits& limits) {
  QUERN_TRY(CheckVocabulary(vocabulary));
  std::vector<uint32_t> lengths;
  std::string bytes;
  lengths.reserve(vocabulary.token_bytes.size());
  for (const std::string& token : vocabulary.token_bytes) {
    const bool special = !token.empty() && token[0] == kSpecialMarker;
    lengths.push_back(special ? 0 : static_cast<uint32_t>(token.size()));
    if (!special) bytes += token;
  }
  std::vector<uint32_t> ends(vocabulary.end_of_generation.begin(),
                             vocabulary.end_of_generation.end());
  LlgTokenizerInitV2 init = {};
  init.struct_size = sizeof(init);
  init.vocab_size = static_cast<uint32_t>(lengths.size());
  init.tok_eos = ends[0];
  init.token_lens = lengths.data();
  init.token_bytes = reinterpret_cast<const uint8_t*>(bytes.data());
  // Only used to suggest tokens ahead of the model, which we never ask for.
  init.use_approximate_greedy_tokenize_fn = true;
  init.tok_eos_extra = ends.size() > 1 ? ends.data() + 1 : nullptr;
  init.tok_eos_extra_count = static_cast<uint32_t>(ends.size() - 1);
  std::array<char, 512> why = {};
  LlgTokenizer* tokenizer = llg_new_tokenizer_v2(&init, why.data(), why.size());
  if (tokenizer == nullptr) {
    return MakeError(ErrorCode::kInternal, "the vocabulary cannot be constrained: {}", why.data());
  }
  return std::unique_ptr<ConstraintCompiler>(new ConstraintCompiler(tokenizer, vocabulary, limits));
}

ConstraintCompiler::ConstraintCompiler(LlgTokenizer* tokenizer,
                                       const ConstraintVocabulary& vocabulary,
                                       const ConstraintLimits& limits)
    : tokenizer_(tokenizer),
      vocab_size_(vocabulary.token_bytes.size()),
      ends_(std::make_shared<const Constraint::Tokens>(vocabulary.end_of_generation)),
      limits_(limits) {}

ConstraintCompiler::~ConstraintCompiler() { llg_free_tokenizer(tokenizer_); }

Result<std::unique_ptr<Constraint>> ConstraintCompiler::Compile(const ConstraintSpec& spec) {
  QUERN_TRY(CheckConstraintSpec(spec));
  std::string key = static_cast<char>('0' + static_cast<int>(spec.kind)) + spec.text;
  if (auto found = FindCached(key)) return found;
  QUERN_ASSIGN(auto built, Build(spec));
  auto answer = built->Clone();
  Keep(std::move(key), std::move(built));
  return answer;
}

Result<std::unique_ptr<Constraint>> ConstraintCompiler::Build(const ConstraintSpec& spec) const {
  using Kind = ConstraintSpec::Kind;
  std::string text = spec.text;
  const char* type = spec.kind == Kind::kRegex                                      ? "regex"
                     : spec.kind == Kind::kGrammar || spec.kind == Kind::kToolCalls ? "lark"
                                                                                    : "json_schema";
  if (spec.kind == Kind::kJsonObject) text = kJsonObject;
  if (spec.kind == Kind::kJsonSchema) {
    QUERN_ASSIGN(text, WithWhitespace(spec.text));
  }
  const LlgConstraintInit init = InitOf(tokenizer_, limits_);
  LlgMatcher* matcher = llg_new_matcher(&init, type, text.c_str());
  auto constraint = std::make_unique<Constraint>(matcher, vocab_size_, ends_);
  if (const char* error = llg_matcher_get_error(matcher)) {
    constexpr size_t kShown = 400;
    return MakeError(ErrorCode::kInvalidArgument, "the {} cannot be used: {}",
                     ConstraintKindName(spec.kind), std::string_view(error).substr(0, kShown));
  }
  // Of a copy, which the answers' own then begin before. One that nothing fits, such as a schema
  // that refers to itself alone, is the client's mistake, and not to be found out by the engine.
  std::vector<uint32_t> mask(MaskWords(vocab_size_));
  if (const Status first = constraint->Clone()->ComputeMask(mask); !first.ok()) {
    return MakeError(ErrorCode::kInvalidArgument, "the {} cannot be used: {}",
                     ConstraintKindName(spec.kind), first.error().message);
  }
  return constraint;
}

std::unique_ptr<Constraint> ConstraintCompiler::FindCached(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, found->second);
  return found->second->prototype->Clone();
}

void ConstraintCompiler::Keep(std::string key, std::unique_ptr<Constraint> prototype) {
  std::lock_guard lock(mutex_);
  if (limits_.cached == 0 || by_key_.contains(key)) return;
  while (recent_.size() >= limits_.cached) {
    by_key_.erase(recent_.back().key);
    recent_.pop_back();
  }
  recent_.push_front({key, std::move(prototype)});
  by_key_.emplace(std::move(key), recent_.begin());
}

}  // namespace quern
