#include "runtime/constraints/constraint_spec.h"

#include <algorithm>
#include <string_view>

namespace quern {
namespace {

// Of all that opens or wraps in a regular expression or grammar, wherever it stands: what is inside
// of what cannot be told without parsing, and more than this no sensible one has.
constexpr size_t kMaxOperators = 2000;
// A JSON schema's arrays and objects within each other, as the server takes them, and some more.
constexpr size_t kMaxSchemaDepth = 100;
// Each "$ref" and each rule may lead to the next: that, too, nests.
constexpr size_t kMaxReferences = 500;

size_t CountOf(std::string_view text, std::string_view characters) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [&](char c) {
    return characters.find(c) != std::string_view::npos;
  }));
}

size_t CountOfWord(std::string_view text, std::string_view word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    ++count;
  }
  return count;
}

Status AtMost(size_t is, size_t limit, std::string_view what, ConstraintSpec::Kind kind) {
  if (is <= limit) return {};
  return MakeError(ErrorCode::kInvalidArgument, "the {} has {} {}; at most {} are taken",
                   ConstraintKindName(kind), is, what, limit);
}

}  // namespace

size_t JsonDepth(std::string_view text) {
  size_t depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

const char* ConstraintKindName(ConstraintSpec::Kind kind) {
  switch (kind) {
    case ConstraintSpec::Kind::kJsonObject:
      return "JSON object";
    case ConstraintSpec::Kind::kJsonSchema:
      return "JSON schema";
    case ConstraintSpec::Kind::kRegex:
      return "regular expression";
    case ConstraintSpec::Kind::kToolCalls:
      return "grammar of tool calls";
    case ConstraintSpec::Kind::kGrammar:
      return "grammar";
  }
  return "constraint";
}

Result<ConstraintSpec> ChoiceConstraint(std::span<const std::string> choices) {
  if (choices.empty() || choices.size() > kMaxChoices) {
    return MakeError(ErrorCode::kInvalidArgument, "there are {} choices; it must be 1 to {}",
                     choices.size(), kMaxChoices);
  }
  ConstraintSpec spec{.kind = ConstraintSpec::Kind::kRegex, .text = {}};
  for (const std::string& choice : choices) {
    if (choice.empty()) return MakeError(ErrorCode::kInvalidArgument, "a choice is empty");
    if (!spec.text.empty()) spec.text += '|';
    for (const char c : choice) {
      // What the syntax lets a backslash make literal; anything else is literal by itself.
      if (std::string_view("\\.+*?()|[]{}^$#&-~/").find(c) != std::string_view::npos) {
        spec.text += '\\';
      }
      spec.text += c;
    }
  }
  if (spec.text.size() > kMaxConstraintBytes) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the choices have more than {} bytes together, the most that are taken",
                     kMaxConstraintBytes);
  }
  if (spec.text.find('\0') != std::string::npos) {
    return MakeError(ErrorCode::kInvalidArgument, "a choice has a NUL byte, which is not possible");
  }
  return spec;
}

Status CheckConstraintSpec(const ConstraintSpec& spec) {
  using Kind = ConstraintSpec::Kind;
  const char* const name = ConstraintKindName(spec.kind);
  if (spec.kind == Kind::kJsonObject) return {};
  if (spec.text.empty()) return MakeError(ErrorCode::kInvalidArgument, "the {} is empty", name);
  const bool own = spec.kind == Kind::kToolCalls;
  QUERN_TRY(
      AtMost(spec.text.size(), own ? kMaxToolCallsBytes : kMaxConstraintBytes, "bytes", spec.kind));
  if (own) return {};
  if (const size_t at = spec.text.find('\0'); at != std::string::npos) {
    return MakeError(ErrorCode::kInvalidArgument, "the {} has a NUL byte at byte {}", name, at);
  }
  if (spec.kind == Kind::kJsonSchema) {
    QUERN_TRY(AtMost(JsonDepth(spec.text), kMaxSchemaDepth, "levels of nesting", spec.kind));
    return AtMost(CountOfWord(spec.text, "\"$ref\""), kMaxReferences, "\"$ref\"s", spec.kind);
  }
  if (spec.kind == Kind::kGrammar) {
    if (spec.text.find("::=") != std::string::npos) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the grammar has '::=': it is to be written in Lark's syntax, such as "
                       "'start: \"yes\" | \"no\"', not in BNF or GBNF");
    }
    QUERN_TRY(AtMost(CountOf(spec.text, ":"), kMaxReferences, "colons (rules)", spec.kind));
  }
  // The escaped ones of a choice are none, but count: its choices are limited, too.
  return AtMost(CountOf(spec.text, spec.kind == Kind::kGrammar ? "([{?*+~!&" : "([{?*+"),
                kMaxOperators, "brackets and operators", spec.kind);
}

}  // namespace quern
