#include "runtime/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::HasSubstr;

const nlohmann::json kMessages = {{{"role", "user"}, {"content", "Hi"}}};

Result<std::string> Render(std::string_view source, const nlohmann::json& messages = kMessages,
                           bool add = true) {
  auto parsed = ChatTemplate::Parse(source, "<s>", "</s>");
  if (!parsed) return std::move(parsed).error();
  return (*parsed)->Render(messages, add);
}

Error MustFail(std::string_view source) {
  auto text = Render(source);
  EXPECT_FALSE(text.ok()) << *text;
  return text.ok() ? Error() : text.error();
}

// tests/recordings/chat_template: Jinja's own renderings, in the environment that transformers
// uses.
TEST(ChatTemplate, RendersWhatJinjaRenders) {
  std::ifstream in(QUERN_TESTS_DIR "/recordings/chat_template/recordings.json");
  ASSERT_TRUE(in.good()) << "run from the root of the checkout";
  const auto recordings = nlohmann::json::parse(in);
  ASSERT_GT(recordings.size(), 25u);
  for (const auto& recording : recordings) {
    const std::string name = recording["name"];
    for (const auto& recorded : recording["cases"]) {
      const auto text = Render(recording["template"].get<std::string>(), recorded["messages"],
                               recorded["add_generation_prompt"]);
      if (recorded.contains("error")) {
        EXPECT_FALSE(text.ok()) << name << ": " << recorded["error"];
      } else if (text.ok()) {
        EXPECT_EQ(*text, recorded["output"].get<std::string>()) << name;
      } else {
        ADD_FAILURE() << name << ": " << text.error().message;
      }
    }
  }
}

TEST(ChatTemplate, TheTemplatesOwnRefusalComesBackAsItsText) {
  const Error error = MustFail("{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(error.code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(error.message, "roles must alternate");
}

TEST(ChatTemplate, WhatIsNotSupportedIsNamedWithItsLine) {
  const Error tag = MustFail("a\n\n{% include 'x' %}");
  EXPECT_EQ(tag.code, ErrorCode::kUnsupported);
  EXPECT_THAT(tag.message, HasSubstr("line 3: the tag 'include' is not supported"));
  EXPECT_THAT(MustFail("{{ 1 }}\n{{ 'a'|wordwrap(3) }}").message,
              HasSubstr("line 2: the filter 'wordwrap'"));
  EXPECT_THAT(MustFail("{{ 1 is nonsense }}").message, HasSubstr("the test 'nonsense'"));
  EXPECT_THAT(MustFail("{{ strftime_now('%Y') }}").message,
              HasSubstr("'strftime_now' is no function"));
}

TEST(ChatTemplate, MistakesInTheTemplateAreNamedWithTheirLine) {
  EXPECT_THAT(MustFail("{% if x %}\na").message, HasSubstr("line 2"));
  EXPECT_THAT(MustFail("{{ 'abc }}").message, HasSubstr("a string is not closed"));
  EXPECT_THAT(MustFail("{{ 1 + }}").message, HasSubstr("an expression is expected"));
  EXPECT_THAT(MustFail("{{ 1 ").message, HasSubstr("the template ends inside a tag"));
  EXPECT_THAT(MustFail("{# x").message, HasSubstr("is not closed"));
  EXPECT_THAT(MustFail("{{ $ }}").message, HasSubstr("'$' (0x24)"));
  EXPECT_THAT(MustFail("{% break %}").message, HasSubstr("outside of a loop"));
  EXPECT_THAT(MustFail("\xff").message, HasSubstr("not valid UTF-8 at byte 0"));
}

TEST(ChatTemplate, NothingRunsOrGrowsWithoutEnd) {
  const std::string forever =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = b %}{% endfor %}{% endfor "
      "%}";
  EXPECT_EQ(MustFail(forever).code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(MustFail("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + "
                     "ns.x %}{% endfor %}")
                .code,
            ErrorCode::kResourceExhausted);
  EXPECT_EQ(MustFail("{{ 'x' * 999999999999 }}").code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(MustFail("{{ range(999999999) }}").code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(MustFail("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").code,
            ErrorCode::kResourceExhausted);
  std::string deep = "{{ ";
  for (int i = 0; i < 100000; ++i) deep += "(";
  for (int i = 0; i < 100000; ++i) deep += i == 0 ? "1)" : ")";
  EXPECT_THAT(MustFail(deep + " }}").message, HasSubstr("nested more than"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 100000; ++i) sum += "+1";
  EXPECT_THAT(MustFail(sum + " }}").message, HasSubstr("nested more than"));
  std::string blocks;
  for (int i = 0; i < 100000; ++i) blocks += "{% if 1 %}";
  EXPECT_THAT(MustFail(blocks).message, HasSubstr("nested more than"));
}

TEST(ChatTemplate, CopiesOfListsCountAndLookingIntoThemDoesNot) {
  // 50,000 items of at least 32 bytes, copied a thousand times.
  const std::string many = "{% set many = range(50000) %}{% for i in range(1000) %}";
  EXPECT_EQ(MustFail(many + "{% set copy = many | list %}{% endfor %}").code,
            ErrorCode::kResourceExhausted);
  const auto text = Render(many + "{% set x = many[i] %}{% endfor %}{{ many[-1] }}");
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(*text, "49999");
}

TEST(ChatTemplate, TheMessagesCannotBeChangedAndMustBeAList) {
  EXPECT_FALSE(Render("{{ messages.append(1) }}").ok());
  EXPECT_FALSE(Render("{{ messages[0].update({'role': 'x'}) }}").ok());
  EXPECT_FALSE(Render("x", nlohmann::json::object()).ok());
}

TEST(ChatTemplate, IsReadFromTheModelWithItsTokens) {
  const auto bytes = GgufWriter()
                         .String("tokenizer.chat_template",
                                 "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
                         .Strings("tokenizer.ggml.tokens", {"<a>", "<b>"})
                         .Uint("tokenizer.ggml.bos_token_id", 1)
                         .Uint("tokenizer.ggml.eos_token_id", 0)
                         .Bytes();
  auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  auto parsed = ChatTemplate::FromGguf(**file);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(*(*parsed)->Render(kMessages, true), "<b>Hi<a>");
}

TEST(ChatTemplate, ABaseModelHasNone) {
  const auto bytes = GgufWriter().Uint("x", 1).Bytes();
  auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  auto parsed = ChatTemplate::FromGguf(**file);
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(parsed.error().message, HasSubstr("model.gguf: the model has no chat template"));
}

}  // namespace
}  // namespace quern
