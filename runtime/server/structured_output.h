#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/constraints/constraint_compiler.h"
#include "runtime/server/fields.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// What a request asks its answer to look like, and the parameter that does.
struct StructuredOutput {
  ConstraintSpec spec;
  std::string param;  // "response_format.json_schema.schema", "structured_outputs.regex", ...
};

// Where OpenAI's format stands in a request.
enum class FormatMember {
  kResponseFormat,  // chats, completions: `response_format`, its schema in `json_schema`
  kText,            // responses: `text.format`, its schema in itself; and `text.verbosity`
};

// Reads OpenAI's format (text, json_object, json_schema) from its member, vLLM's
// `structured_outputs` (json, json_object, regex, choice, grammar) and the older `guided_json`,
// `guided_regex`, `guided_choice`, `guided_grammar`. At most one of them may be there. Throws
// ApiException. `body`: what `fields` was parsed from. A schema's text is taken from there, because
// the order of its members is that of the answer's.
std::optional<StructuredOutput> ParseStructuredOutput(Fields& fields, std::string_view body,
                                                      FormatMember member);

// What the compiler must know of a model's tokens. The tokens of control give nothing.
ConstraintVocabulary ConstraintVocabularyOf(const Tokenizer& tokenizer);

// The compiler of one model's constraints, made for the first request that wants one: for a large
// vocabulary it takes a hundred MiB, which nobody pays who wants none. Thread-safe.
// Making it takes tenths of a second, for which others wait: not for an I/O thread.
class LazyConstraints {
 public:
  // Lives as long as this. The error says why there is none; it is the same each time.
  Result<ConstraintCompiler*> Get(const Tokenizer& tokenizer);

 private:
  std::mutex mutex_;
  std::unique_ptr<ConstraintCompiler> compiler_;
  std::optional<Error> error_;
};

// The text of the member `name` of `object`, which is the text of a JSON object that was checked to
// be one; of several with that name the last. Empty: there is none, or its name is written with
// escapes.
std::string_view RawMember(std::string_view object, std::string_view name);

}  // namespace quern::server
