// What the masks let through is checked against nlohmann's JSON parser and std::regex: neither is
// the library's.
#include "runtime/constraints/constraint.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <regex>
#include <set>

#include "runtime/constraints/constraint_compiler.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/models.h"

namespace quern {
namespace {

using nlohmann::json;
using Kind = ConstraintSpec::Kind;

constexpr int32_t kEnd = 256, kOtherEnd = 257, kControl = 258;

// The bytes, two ends, a control token, and pieces that lie across JSON's borders.
ConstraintVocabulary Toy() {
  ConstraintVocabulary vocabulary{.token_bytes = {}, .end_of_generation = {kEnd, kOtherEnd}};
  for (int byte = 0; byte < 256; ++byte) vocabulary.token_bytes.emplace_back(1, char(byte));
  vocabulary.token_bytes.resize(259);
  for (const char* piece :
       {"\"}", "\": ", "{\"", "tru", "true", "ab", "\xC3\xA9", "}}", ", \"", "12"}) {
    vocabulary.token_bytes.emplace_back(piece);
  }
  return vocabulary;
}

struct Model {
  explicit Model(ConstraintVocabulary wanted, const ConstraintLimits& limits = {})
      : vocabulary(std::move(wanted)),
        compiler(ConstraintCompiler::Create(vocabulary, limits).value()) {}

  std::vector<int32_t> Allowed(Constraint& constraint) const {
    std::vector<uint32_t> mask(MaskWords(vocabulary.token_bytes.size()));
    const Status status = constraint.ComputeMask(mask);
    EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
    std::vector<int32_t> ids;
    if (!status.ok()) return ids;
    for (size_t id = 0; id < vocabulary.token_bytes.size(); ++id) {
      if (MaskAllows(mask, id)) ids.push_back(static_cast<int32_t>(id));
    }
    return ids;
  }
  bool IsEnd(int32_t id) const {
    const auto& ends = vocabulary.end_of_generation;
    return std::find(ends.begin(), ends.end(), id) != ends.end();
  }
  // Follows the masks by chance until an end token; half of the time towards the end. Nothing if
  // that is not met within `steps`.
  std::optional<std::string> Walk(Constraint& constraint, std::mt19937& random, int steps) const {
    std::string text;
    for (int step = 0; step < steps; ++step) {
      std::vector<int32_t> ids = Allowed(constraint);
      if (ids.empty()) return std::nullopt;
      std::vector<int32_t> closing;
      for (const int32_t id : ids) {
        const std::string& bytes = vocabulary.token_bytes[static_cast<size_t>(id)];
        if (IsEnd(id) || bytes == "\"" || bytes == "}" || bytes == "]") closing.push_back(id);
      }
      const auto& from = !closing.empty() && random() % 2 == 0 ? closing : ids;
      const int32_t token = from[random() % from.size()];
      EXPECT_TRUE(constraint.Commit(token).ok());
      if (IsEnd(token)) return text;
      text += vocabulary.token_bytes[static_cast<size_t>(token)];
    }
    return std::nullopt;
  }
  std::unique_ptr<Constraint> Compile(Kind kind, const std::string& text = "") const {
    auto constraint = compiler->Compile({.kind = kind, .text = text});
    EXPECT_TRUE(constraint.ok()) << constraint.error().message;
    return constraint.ok() ? std::move(constraint).value() : nullptr;
  }
  // Whether the bytes one by one, and then an end, are let through.
  bool Takes(Kind kind, const std::string& spec, const std::string& text) const {
    auto constraint = Compile(kind, spec);
    for (const char c : text) {
      if (!constraint->Commit(static_cast<unsigned char>(c)).ok()) return false;
    }
    return constraint->IsAccepting() && constraint->Commit(kEnd).ok();
  }

  ConstraintVocabulary vocabulary;
  std::unique_ptr<ConstraintCompiler> compiler;
};

std::string WhyNot(const Model& model, Kind kind, const std::string& text) {
  auto constraint = model.compiler->Compile({.kind = kind, .text = text});
  if (constraint.ok()) return "accepted";
  EXPECT_EQ(constraint.error().code, ErrorCode::kInvalidArgument);
  return constraint.error().message;
}

constexpr char kPerson[] = R"({"type":"object","properties":{
  "name":{"type":"string","maxLength":8},"age":{"type":"integer","minimum":0,"maximum":120},
  "kind":{"enum":["cat","dog"]},"tags":{"type":"array","items":{"$ref":"#/$defs/tag"},"maxItems":3}},
  "required":["name","age","kind"],"additionalProperties":false,
  "$defs":{"tag":{"type":"string","pattern":"^[a-z]{1,4}$"}}})";

void ExpectPerson(const std::string& text) {
  const json value = json::parse(text, nullptr, false);
  ASSERT_TRUE(value.is_object()) << text;
  EXPECT_TRUE(value.at("name").is_string()) << text;
  const json& age = value.at("age");
  EXPECT_TRUE(age.is_number_integer() && age >= 0 && age <= 120) << text;
  EXPECT_TRUE(value.at("kind") == "cat" || value.at("kind") == "dog") << text;
  EXPECT_LE(value.size(), 3u + value.count("tags")) << text;
  if (!value.contains("tags")) return;
  EXPECT_LE(value["tags"].size(), 3u);
  for (const json& tag : value["tags"]) {
    EXPECT_TRUE(std::regex_match(tag.get<std::string>(), std::regex("[a-z]{1,4}"))) << text;
  }
}

TEST(Constraint, WalksThroughAJsonObjectParse) {
  const Model model(Toy());
  int ended = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto text = model.Walk(*model.Compile(Kind::kJsonObject), random, 400);
    if (!text) continue;
    ++ended;
    EXPECT_TRUE(json::parse(*text, nullptr, false).is_object()) << *text;
  }
  EXPECT_GT(ended, 30);
}

TEST(Constraint, WalksThroughASchemaAreValidUnderIt) {
  const Model model(Toy());
  int ended = 0;
  std::set<std::string> kinds;
  for (unsigned seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    const auto text = model.Walk(*model.Compile(Kind::kJsonSchema, kPerson), random, 500);
    if (!text) continue;
    ++ended;
    ExpectPerson(*text);
    kinds.insert(json::parse(*text)["kind"]);
  }
  EXPECT_GT(ended, 30);
  EXPECT_EQ(kinds.size(), 2u) << "the masks leave a choice";
}

TEST(Constraint, WalksOverARealVocabularyAreValid) {
  QUERN_NEED_MODEL("SmolLM2-135M-Instruct.Q4_1.gguf");
  auto file = GgufFile::Open(test_support::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"));
  ASSERT_TRUE(file.ok());
  const auto tokenizer = Tokenizer::FromGguf(**file).value();
  ConstraintVocabulary vocabulary;
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
    vocabulary.token_bytes.push_back(tokenizer->TokenBytes(id));
    if (tokenizer->IsEndOfGeneration(id)) vocabulary.end_of_generation.push_back(id);
  }
  const Model model(std::move(vocabulary));
  int ended = 0;
  for (unsigned seed = 0; seed < 4; ++seed) {
    std::mt19937 random(seed);
    const auto text = model.Walk(*model.Compile(Kind::kJsonSchema, kPerson), random, 200);
    if (!text) continue;
    ++ended;
    ExpectPerson(*text);
  }
  EXPECT_GT(ended, 1);
}

TEST(Constraint, MembersComeInTheSchemasOrderAndBlanksAreBounded) {
  const Model model(Toy());
  const std::string schema =
      R"({"type":"object","properties":{"z":{"const":1},"a":{"const":2}},"required":["z","a"]})";
  EXPECT_TRUE(model.Takes(Kind::kJsonSchema, schema, R"({"z": 1, "a": 2})"));
  EXPECT_FALSE(model.Takes(Kind::kJsonSchema, schema, R"({"a": 2, "z": 1})"));
  auto constraint = model.Compile(Kind::kJsonObject);
  ASSERT_TRUE(constraint->Commit('{').ok());
  int blanks = 0;
  while (blanks < 100 && constraint->Commit(' ').ok()) ++blanks;
  EXPECT_GE(blanks, 8);
  EXPECT_LE(blanks, 20);
}

TEST(Constraint, ARegularExpressionMatchesAllOfTheAnswer) {
  const Model model(Toy());
  const std::string expression = "[a-c]{2,3}-(0|[1-9][0-9]?)";
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    const auto text = model.Walk(*model.Compile(Kind::kRegex, expression), random, 50);
    ASSERT_TRUE(text.has_value());
    EXPECT_TRUE(std::regex_match(*text, std::regex(expression))) << *text;
  }
  EXPECT_FALSE(model.Takes(Kind::kRegex, expression, "ab-01"));
}

TEST(Constraint, AChoiceIsOneOfThemLetterForLetter) {
  const Model model(Toy());
  const std::vector<std::string> choices = {"yes",  "no",          "a|b",
                                            "(x)*", "caf\xC3\xA9", "[^]-\\d #/&~"};
  const ConstraintSpec spec = ChoiceConstraint(choices).value();
  std::set<std::string> seen;
  for (unsigned seed = 0; seed < 100; ++seed) {
    std::mt19937 random(seed);
    seen.insert(model.Walk(*model.Compile(spec.kind, spec.text), random, 50).value());
  }
  EXPECT_EQ(seen, std::set<std::string>(choices.begin(), choices.end()));
  EXPECT_FALSE(ChoiceConstraint({}).ok());
}

TEST(Constraint, AGrammarInLarksSyntaxIsFollowed) {
  const Model model(Toy());
  const std::string grammar = "start: \"(\" start \")\" | \"x\"\n";
  EXPECT_TRUE(model.Takes(Kind::kGrammar, grammar, "((x))"));
  EXPECT_FALSE(model.Takes(Kind::kGrammar, grammar, "((x)"));
  EXPECT_NE(WhyNot(model, Kind::kGrammar, "root ::= \"x\"").find("Lark"), std::string::npos);
}

TEST(Constraint, WhereItMustEndOnlyTheEndTokensAreAllowed) {
  const Model model(Toy());
  auto constraint = model.Compile(Kind::kRegex, "ab");
  EXPECT_FALSE(constraint->IsAccepting());
  EXPECT_FALSE(constraint->Commit(kEnd).ok()) << "not yet";
  constraint = model.Compile(Kind::kRegex, "ab");
  ASSERT_TRUE(constraint->Commit('a').ok());
  auto other = constraint->Clone();
  ASSERT_TRUE(constraint->Commit('b').ok());
  EXPECT_EQ(model.Allowed(*constraint), (std::vector<int32_t>{kEnd, kOtherEnd}));
  EXPECT_TRUE(constraint->IsAccepting());
  EXPECT_TRUE(constraint->Commit(kOtherEnd).ok());
  EXPECT_TRUE(constraint->IsFinished());
  EXPECT_EQ(model.Allowed(*other), (std::vector<int32_t>{'b'})) << "a clone stays where it was";
}

TEST(Constraint, ATokenOutsideTheMaskIsRefused) {
  const Model model(Toy());
  for (const int32_t token : {int32_t{'x'}, kControl, -1, 100000}) {
    EXPECT_FALSE(model.Compile(Kind::kRegex, "ab")->Commit(token).ok()) << token;
  }
}

// Only its beginning is looked at when it is compiled.
TEST(Constraint, WhereNothingFitsAnyMoreIsAnErrorThatSaysSo) {
  const Model model(Toy());
  const auto constraint = model.Compile(Kind::kGrammar, "start: \"a\" /[^\\s\\S]/\n");
  std::vector<uint32_t> mask(MaskWords(model.vocabulary.token_bytes.size()));
  Status status = constraint->ComputeMask(mask);
  if (status.ok()) {
    ASSERT_TRUE(constraint->Commit('a').ok());
    status = constraint->ComputeMask(mask);
  }
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(status.error().message.find("nothing fits it"), std::string::npos)
      << status.error().message;
}

TEST(ConstraintCompiler, SaysWhatCannotBeUsed) {
  const Model model(Toy());
  struct Case {
    Kind kind;
    std::string text;
    const char* says;
  };
  for (const Case& c : {
           Case{Kind::kJsonSchema, R"({"type":"object","unevaluatedProperties":false})",
                "unevaluatedProperties"},
           Case{Kind::kJsonSchema, R"({"type":"strng"})", "strng"},
           Case{Kind::kJsonSchema, R"({"$ref":"https://example.org/s.json"})", "example.org"},
           Case{Kind::kJsonSchema, "{", "not valid JSON"},
           Case{Kind::kJsonSchema, "7", "must be an object"},
           Case{Kind::kJsonSchema, std::string(101, '['), "levels of nesting"},
           Case{Kind::kRegex, "a(", "regular expression"},
           Case{Kind::kRegex, std::string(kMaxConstraintBytes + 1, 'a'), "bytes"},
           Case{Kind::kRegex, std::string("a\0b", 3), "NUL"},
           Case{Kind::kRegex, std::string(3000, '('), "brackets"},
           Case{Kind::kRegex, "", "empty"},
           Case{Kind::kGrammar, "start: other\n", "other"},
           // What compiles, and what yet nothing fits.
           Case{Kind::kJsonSchema, R"({"$ref":"#"})", "nothing fits it"},
           Case{Kind::kJsonSchema, R"({"anyOf":[{"$ref":"#"}]})", "nothing fits it"},
           Case{Kind::kRegex, "[^\\s\\S]", "nothing fits it"},
           Case{Kind::kGrammar, "start: start \"a\"\n", "nothing fits it"},
       }) {
    const std::string message = WhyNot(model, c.kind, c.text);
    EXPECT_NE(message.find(c.says), std::string::npos) << message;
    EXPECT_LT(message.size(), 600u);
    EXPECT_EQ(message.find("verbose"), std::string::npos) << message;
  }
  EXPECT_FALSE(ConstraintCompiler::Create({.token_bytes = {"a"}, .end_of_generation = {}}).ok());
  EXPECT_FALSE(ConstraintCompiler::Create({.token_bytes = {"a"}, .end_of_generation = {1}}).ok());
}

// What is nested as deeply as the checks let through, in ways that lead to recursion.
TEST(ConstraintCompiler, DeepNestingIsAnErrorOrAConstraintButNeverACrash) {
  const Model model(Toy());
  std::string chain = R"({"$ref":"#/$defs/d0","$defs":{)";
  std::string rules = "start: r0\n";
  for (int i = 0; i < 490; ++i) {
    chain += fmt::format(R"("d{}":{{"$ref":"#/$defs/d{}"}},)", i, i + 1);
    rules += fmt::format("r{}: r{}\n", i, i + 1);
  }
  WhyNot(model, Kind::kJsonSchema, chain + R"("d490":{"type":"null"}}})");
  WhyNot(model, Kind::kGrammar, rules + "r490: \"x\"\n");
  WhyNot(model, Kind::kGrammar,
         "start: " + std::string(1900, '(') + "\"x\"" + std::string(1900, ')'));
  WhyNot(model, Kind::kGrammar, "start: \"x\"" + std::string(1900, '?'));
  WhyNot(model, Kind::kRegex, std::string(1900, '(') + "x" + std::string(1900, ')'));
  WhyNot(model, Kind::kRegex, "(((x{500}){500}){500}){500}");
  WhyNot(model, Kind::kRegex, "x" + std::string(1900, '?'));
}

TEST(ConstraintCompiler, KeepsTheLatestAndGivesEachItsOwnCopy) {
  ConstraintLimits limits;
  limits.cached = 2;
  const Model model(Toy(), limits);
  for (int round = 0; round < 3; ++round) {
    for (const char* text : {"ab", "cd", "ef"}) {
      auto constraint = model.Compile(Kind::kRegex, text);
      EXPECT_EQ(model.Allowed(*constraint).front(), text[0]);
      EXPECT_TRUE(constraint->Commit(static_cast<unsigned char>(text[0])).ok());
      EXPECT_EQ(model.Allowed(*model.Compile(Kind::kRegex, text)).front(), text[0]);
    }
  }
}

}  // namespace
}  // namespace quern
