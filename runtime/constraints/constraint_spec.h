#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace quern {

// What an answer must look like, as a client wrote it.
struct ConstraintSpec {
  enum class Kind {
    kJsonObject,  // any JSON object; `text` is empty
    kJsonSchema,  // JSON that is valid under the schema `text`
    kRegex,       // all of the answer matches `text`, in the syntax of Rust's regex crate
    kGrammar,     // llguidance's variant of Lark
    kToolCalls,   // the same, not a client's: written around JSON schemas that were each checked
  };
  Kind kind = Kind::kJsonObject;
  std::string text;

  bool operator==(const ConstraintSpec&) const = default;
};

// For error messages: "JSON schema", "regular expression", ...
const char* ConstraintKindName(ConstraintSpec::Kind kind);

// Bounds of what a client may send. They keep the compiler's recursion and time small whatever is
// in it.
inline constexpr size_t kMaxConstraintBytes = 64 * 1024;
inline constexpr size_t kMaxToolCallsBytes = 256 * 1024;
inline constexpr size_t kMaxChoices = 1024;

// The answer is exactly one of `choices`: a regular expression of them. kInvalidArgument: none, too
// many, an empty one, or one with a NUL byte.
Result<ConstraintSpec> ChoiceConstraint(std::span<const std::string> choices);

// The deepest nesting of objects and arrays. Brackets in strings do not count; of a text that is no
// JSON it is some number.
size_t JsonDepth(std::string_view text);

// Refuses (kInvalidArgument, with the limit) what is too large or nested too deeply to be given to
// the library: it recurses over what it reads.
Status CheckConstraintSpec(const ConstraintSpec& spec);

}  // namespace quern
