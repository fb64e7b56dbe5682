#include "runtime/server/structured_output.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "runtime/server/json_text.h"

namespace quern::server {
using nlohmann::json;
using SpecKind = ConstraintSpec::Kind;

namespace {

size_t SkipBlanks(std::string_view text, size_t at) {
  at = text.find_first_not_of(kJsonBlanks, at);
  return at == std::string_view::npos ? text.size() : at;
}

// Behind the string that begins at `at`.
size_t SkipString(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

// Behind the value that begins at `at`.
size_t SkipValue(std::string_view text, size_t at) {
  int depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = SkipString(text, at);
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;  // of a number or a word that ends its parent
      --depth;
      ++at;
    } else if (depth == 0) {
      at = text.find_first_of(",}] \t\r\n", at);
      return at == std::string_view::npos ? text.size() : at;
    } else {
      ++at;
    }
    if (depth == 0) return at;
  }
  return at;
}

// The text of a value: as it was written, else (escapes in the names on its way) as parsed.
std::string TextOf(const json& value, std::string_view object, std::string_view name) {
  const std::string_view raw = RawMember(object, name);
  if (!raw.empty()) return std::string(raw);
  return JsonText(value);
}

ConstraintSpec SchemaSpec(const json& value, std::string_view object, const std::string& name,
                          const Fields& fields, bool may_be_text) {
  if (may_be_text && value.is_string()) return {SpecKind::kJsonSchema, value.get<std::string>()};
  if (!value.is_object()) {
    fields.WrongType(name, may_be_text ? "a JSON schema (an object, or its text)" : "a JSON schema",
                     value);
  }
  return {SpecKind::kJsonSchema, TextOf(value, object, name)};
}

ConstraintSpec ChoiceSpec(const json& value, const std::string& name, const Fields& fields) {
  if (!value.is_array()) fields.WrongType(name, "an array of strings", value);
  std::vector<std::string> choices;
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string element = fmt::format("{}[{}]", name, i);
    if (!value[i].is_string()) fields.WrongType(element, "a string", value[i]);
    choices.push_back(value[i].get<std::string>());
    if (!choices.back().empty()) continue;
    ThrowApiError(fields.Path(element), "invalid_value",
                  fmt::format("'{}' must not be empty", fields.Path(element)));
  }
  auto spec = ChoiceConstraint(choices);
  if (!spec) {
    ThrowApiError(fields.Path(name), "invalid_value",
                  fmt::format("'{}': {}", fields.Path(name), spec.error().message));
  }
  return std::move(spec).value();
}

ConstraintSpec TextSpec(SpecKind kind, const json& value, const std::string& name,
                        const Fields& fields) {
  if (!value.is_string()) fields.WrongType(name, "a string", value);
  return {kind, value.get<std::string>()};
}

// The members of {"type": "json_schema"} that say more. `object`: the text of `holder`.
StructuredOutput ReadSchema(Fields& holder, std::string_view object) {
  holder.String("name");
  holder.Bool("strict");  // it is always kept to
  holder.IgnoreStrings({"description"});
  const json& schema = holder.Require("schema", "a JSON schema");
  return {SchemaSpec(schema, object, "schema", holder, /*may_be_text=*/false),
          holder.Path("schema")};
}

// `object`: the text of `value`, which is at `path`.
std::optional<StructuredOutput> ReadFormat(const json& value, const std::string& path,
                                           std::string_view object, FormatMember member) {
  Fields format(value, path);
  constexpr char kTypes[] = "\"text\", \"json_object\" or \"json_schema\"";
  const json& named = format.Require("type", kTypes);
  if (!named.is_string()) format.WrongType("type", kTypes, named);
  const auto& type = named.get_ref<const std::string&>();
  std::optional<StructuredOutput> result;
  if (type == "json_object") {
    result = {{SpecKind::kJsonObject, ""}, path};
  } else if (type == "json_schema" && member == FormatMember::kText) {
    result = ReadSchema(format, object);
  } else if (type == "json_schema") {
    Fields outer(format.Require("json_schema", "an object with 'name' and 'schema'"),
                 format.Path("json_schema"));
    result = ReadSchema(outer, RawMember(object, "json_schema"));
    outer.RefuseUnknown();
  } else if (type != "text") {
    ThrowApiError(format.Path("type"), "invalid_value",
                  fmt::format("'{}' must be {}, not \"{}\"", format.Path("type"), kTypes,
                              type.substr(0, 40)));
  }
  format.RefuseUnknown();
  return result;
}

std::optional<StructuredOutput> ReadFormat(Fields& fields, std::string_view body,
                                           FormatMember member) {
  if (member == FormatMember::kResponseFormat) {
    const json* value = fields.Find("response_format");
    if (value == nullptr) return std::nullopt;
    return ReadFormat(*value, "response_format", RawMember(body, "response_format"), member);
  }
  const json* value = fields.Find("text");
  if (value == nullptr) return std::nullopt;
  Fields text(*value, "text");
  text.OnlyNeutral("verbosity", {"medium"});
  const json* format = text.Find("format");
  text.RefuseUnknown();
  if (format == nullptr) return std::nullopt;
  return ReadFormat(*format, "text.format", RawMember(RawMember(body, "text"), "format"), member);
}

// The members of `structured_outputs`, or the older ones with `prefix` "guided_", into `found`.
void ReadMembers(Fields& fields, std::string_view object, const std::string& prefix,
                 std::vector<StructuredOutput>& found) {
  const auto read = [&](const char* member, const auto& spec_of) {
    const std::string name = prefix + member;
    if (const json* value = fields.Find(name)) {
      found.push_back({spec_of(*value, name), fields.Path(name)});
    }
  };
  read("json", [&](const json& value, const std::string& name) {
    return SchemaSpec(value, object, name, fields, /*may_be_text=*/true);
  });
  read("regex", [&](const json& value, const std::string& name) {
    return TextSpec(SpecKind::kRegex, value, name, fields);
  });
  read("choice",
       [&](const json& value, const std::string& name) { return ChoiceSpec(value, name, fields); });
  read("grammar", [&](const json& value, const std::string& name) {
    return TextSpec(SpecKind::kGrammar, value, name, fields);
  });
}

}  // namespace

std::string_view RawMember(std::string_view object, std::string_view name) {
  std::string_view found;
  size_t at = SkipBlanks(object, 0);
  if (at >= object.size() || object[at] != '{') return found;
  while (true) {
    at = SkipBlanks(object, at + 1);  // behind "{" or ","
    if (at >= object.size() || object[at] != '"') return found;
    const size_t key_end = SkipString(object, at);
    const std::string_view key = object.substr(at + 1, key_end - at - 2);
    at = SkipBlanks(object, SkipBlanks(object, key_end) + 1);  // behind ":"
    const size_t end = SkipValue(object, at);
    if (key == name) found = object.substr(at, end - at);
    at = SkipBlanks(object, end);
    if (at >= object.size() || object[at] != ',') return found;
  }
}

std::optional<StructuredOutput> ParseStructuredOutput(Fields& fields, std::string_view body,
                                                      FormatMember member) {
  std::vector<StructuredOutput> found;
  if (auto format = ReadFormat(fields, body, member)) found.push_back(std::move(*format));
  if (const json* value = fields.Find("structured_outputs")) {
    Fields inner(*value, "structured_outputs");
    ReadMembers(inner, RawMember(body, "structured_outputs"), "", found);
    if (inner.Bool("json_object").value_or(false)) {
      found.push_back({{SpecKind::kJsonObject, ""}, "structured_outputs.json_object"});
    }
    inner.RefuseUnknown();
  }
  ReadMembers(fields, body, "guided_", found);
  if (found.empty()) return std::nullopt;
  if (found.size() > 1) {
    ThrowApiError(found[1].param, "invalid_value",
                  fmt::format("'{}' and '{}' both say what the answer must look like: send one",
                              found[0].param, found[1].param));
  }
  if (const Status status = CheckConstraintSpec(found[0].spec); !status) {
    ThrowApiError(found[0].param, "invalid_value", status.error().message);
  }
  return std::move(found[0]);
}

ConstraintVocabulary ConstraintVocabularyOf(const Tokenizer& tokenizer) {
  ConstraintVocabulary vocabulary;
  vocabulary.token_bytes.reserve(static_cast<size_t>(tokenizer.vocab_size()));
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const bool ends = tokenizer.IsEndOfGeneration(id);
    if (ends) vocabulary.end_of_generation.push_back(id);
    const bool silent = ends || tokenizer.IsControl(id);
    vocabulary.token_bytes.push_back(silent ? std::string() : tokenizer.TokenBytes(id));
  }
  return vocabulary;
}

Result<ConstraintCompiler*> LazyConstraints::Get(const Tokenizer& tokenizer) {
  std::lock_guard lock(mutex_);
  if (error_) return *error_;
  if (!compiler_) {
    auto made = ConstraintCompiler::Create(ConstraintVocabularyOf(tokenizer));
    if (!made) return error_.emplace(std::move(made).error());
    compiler_ = std::move(made).value();
  }
  return compiler_.get();
}

}  // namespace quern::server
