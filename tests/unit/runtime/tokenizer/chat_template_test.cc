#include "runtime/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::HasSubstr;

const nlohmann::ordered_json kMessages = {{{"role", "user"}, {"content", "Hi"}}};

ChatTemplateSource SourceOf(std::string_view text) {
  return {.file = "model",
          .templates = {{"default", std::string(text)}},
          .tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}}};
}

Result<std::string> Render(std::string_view source,
                           const nlohmann::ordered_json& messages = kMessages, bool add = true,
                           const nlohmann::ordered_json& tools = nullptr) {
  auto parsed = ChatTemplate::Make(SourceOf(source));
  if (!parsed) return std::move(parsed).error();
  return (*parsed)->Render({.messages = messages, .tools = tools, .add_generation_prompt = add});
}

Error MustFail(std::string_view source) {
  auto text = Render(source);
  EXPECT_FALSE(text.ok()) << *text;
  return text.ok() ? Error() : text.error();
}

TEST(ChatTemplate, KnowsToolCallsWhereItWritesThemBetweenTheMarks) {
  const auto knows = [](std::string_view source) {
    return (*ChatTemplate::Make(SourceOf(source)))->KnowsToolCalls(true);
  };
  EXPECT_TRUE(knows("{% for t in tools %}{{ t | tojson }}{% endfor %}<tool_call>"));
  EXPECT_FALSE(knows("{% for t in tools %}{{ t | tojson }}{% endfor %}[TOOL_CALLS]"));
  EXPECT_FALSE(knows("{{ messages[0].content }}<tool_call>"));
}

// tests/recordings/chat_template: Jinja's own renderings, in the environment that transformers
// uses. Whole templates of real models: tests/integration/chat_template.
TEST(ChatTemplate, RendersWhatJinjaRenders) {
  std::ifstream in(QUERN_TESTS_DIR "/recordings/chat_template/recordings.json");
  ASSERT_TRUE(in.good()) << "run from the root of the checkout";
  const auto recordings = nlohmann::ordered_json::parse(in);
  ASSERT_GT(recordings.size(), 40u);
  setenv("TZ", "UTC", 1);
  tzset();
  ManualClock clock;
  clock.Advance(std::chrono::seconds(1773500966));  // reference.py's NOW
  for (const auto& recorded : recordings) {
    SCOPED_TRACE(recorded["name"].get<std::string>());
    const auto parsed =
        ChatTemplate::Make(SourceOf(recorded["template"].get<std::string>()), "", clock);
    const auto text = parsed
                          ? (*parsed)->Render({.messages = recorded["messages"], .tools = nullptr})
                          : Result<std::string>(parsed.error());
    if (recorded.contains("error")) {
      EXPECT_FALSE(text.ok()) << *text << " instead of " << recorded["error"];
    } else {
      ASSERT_TRUE(text.ok()) << text.error().message;
      EXPECT_EQ(*text, recorded["output"].get<std::string>());
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
  EXPECT_THAT(MustFail("{{ utcnow('%Y') }}").message, HasSubstr("'utcnow' is no function"));
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

// In each of these a small template makes a value that is far larger to go through than it was to
// make, because its parts are shared, or far deeper than the stack.
TEST(ChatTemplate, NestedAndSharedValuesAreBounded) {
  const auto nest = [](const char* value, int times) {
    return fmt::format(
        "{{% set ns = namespace(x=1) %}}{{% for i in range({}) %}}{{% set ns.x = {} %}}{{% endfor "
        "%}}",
        times, value);
  };
  for (const char* deeper : {"[ns.x]", "{'a': ns.x}", "{'a': ns.x}.items"}) {
    const Error error = MustFail(nest(deeper, 100000));
    EXPECT_EQ(error.code, ErrorCode::kResourceExhausted) << deeper;
  }
  // 2^60 leaves.
  const std::string shared = nest("[ns.x, ns.x]", 60);
  for (const char* use :
       {"{{ ns.x }}", "{{ ns.x == ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | string }}",
        "{{ 'a' ~ ns.x }}", "{{ ns.x in [ns.x] }}", "{{ [ns.x, ns.x] | unique }}",
        "{{ [ns.x] | join(',') }}", "{{ 'a'.startswith(ns.x) }}", "{{ ns.x is eq(ns.x) }}",
        "{{ raise_exception(ns.x) }}"}) {
    MustFail(shared + use);
  }
  EXPECT_TRUE(Render(nest("[ns.x]", 90) + "{{ ns.x }}").ok());
}

// Reference counts never free these.
TEST(ChatTemplate, NamespacesThatHoldThemselvesOrLongChainsAreFreed) {
  EXPECT_TRUE(
      Render("{% set ns = namespace() %}{% set ns.m = messages %}{% set ns.self = [ns] %}").ok());
  EXPECT_TRUE(Render("{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% set ns.x = "
                     "namespace(x=ns.x) %}{% endfor %}")
                  .ok());
}

TEST(ChatTemplate, TextsOfAnySizeAreWorkThatCounts) {
  // 200 kB each: a search or a strip that took their product would not come back.
  const std::string texts = "{% set a = 'a' * 200000 %}{% set b = 'a' * 100000 ~ 'b' %}";
  EXPECT_EQ(*Render(texts + "{{ a.find(b) }} {{ a.rfind(b) }} {{ a.count(b) }} {{ b in a }} "
                            "{{ a.split(b) | length }} {{ a.rsplit(b) | length }} "
                            "{{ a.strip(b) | length }} {{ a.replace(b, '') | length }}"),
            "-1 -1 0 False 1 1 0 200000");
  // Copies that are not kept count, too.
  EXPECT_EQ(MustFail(texts + "{% for i in range(9999) %}{% set x = {a: 1} %}{% endfor %}").code,
            ErrorCode::kResourceExhausted);
  EXPECT_EQ(
      MustFail(texts + "{% for i in range(9999) %}{% set x = a == b ~ '' %}{% endfor %}").code,
      ErrorCode::kResourceExhausted);
  EXPECT_EQ(
      MustFail("{% set ns = namespace() %}{% set ns.self = ns %}{% set p = 'self.' * 9999 ~ "
               "'self' %}{% set many = [ns, ns, ns, ns, ns, ns, ns, ns, ns, ns] %}"
               "{% for i in range(99) %}{% set x = many | map(attribute=p) | list %}{% endfor %}")
          .code,
      ErrorCode::kResourceExhausted);
  std::string maps = "{{ 'ab' | map('map'";
  for (int i = 0; i < 50000; ++i) maps += ",'map'";
  EXPECT_EQ(MustFail(maps + ") }}").code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(MustFail("{{ " + std::string(300, 'n') + " }}").message,
              HasSubstr("a name of 300 bytes"));
  // A chain inside the arguments of a chain, and so on.
  std::string chains;
  for (int i = 0; i < 60; ++i) {
    chains += "f(1";
    for (int j = 0; j < 150; ++j) chains += "+1";
    chains += "+";
  }
  chains += "1" + std::string(60, ')');
  EXPECT_THAT(MustFail("{{ " + chains + " }}").message, HasSubstr("nested more than"));
}

// A thousand times a megabyte, where the text that is called on is small.
TEST(ChatTemplate, TextsAmongArgumentsAndKeysCount) {
  for (const char* use :
       {"'b'.strip(s)", "'b'.lstrip(chars=s)", "'b' | trim(s)", "'b'.rfind(s)", "'b'.split(s)",
        "'b'.rsplit(s)", "'b'.endswith(s)", "'b'.replace(s, '')", "'b' | replace('c', new=s)",
        "s in {'a': 1}", "s in 'b'", "{'a': 1}.get(s)", "{'a': 1}[s]", "[{}] | selectattr(s)",
        "'b' is in(s)", "dict([[s, 1]])"}) {
    const Error error = MustFail(fmt::format(
        "{{% set s = 'a' * 1000000 %}}{{% for i in range(1000) %}}{{% set x = {} %}}{{% endfor %}}",
        use));
    EXPECT_EQ(error.code, ErrorCode::kResourceExhausted) << use;
    EXPECT_THAT(error.message, HasSubstr("MiB of memory")) << use;
  }
  // Keys that differ only at their ends.
  std::string keys = "{% set s = 'a' * 200000 %}{% set d = {";
  for (int i = 100; i < 200; ++i) keys += fmt::format("s ~ '{}': 1, ", i);
  EXPECT_EQ(MustFail(keys + "} %}{% for i in range(500) %}{% set x = (s ~ 'abc') in d %}"
                            "{% endfor %}")
                .code,
            ErrorCode::kResourceExhausted);
}

constexpr const char* kUsesOfTexts[] = {
    "('\\n' * 40000000) | indent",        "('\\n' * 3000000).splitlines()",
    "('a b' * 3000000).split()",          "('a b' * 3000000).split('a')",
    "('a b' * 3000000).rsplit('b')",      "('%499d' * 500000) % ((1,) * 500000)",
    "('{0}' * 3000).format('a' * 99999)", "('\u00e9' * 30000000) | tojson(ensure_ascii=true)",
    "('\"' * 70000000) | tojson",         "['\\\\' * 95000000] | string",
};

// A value that is small beside what is made of it. Each by itself: under sanitizers some take long.
class ChatTemplateTexts : public ::testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(Uses, ChatTemplateTexts,
                         ::testing::Range<size_t>(0, std::size(kUsesOfTexts)));

TEST_P(ChatTemplateTexts, WhatTheyAreMadeIntoIsPaidForAsItGrows) {
  const char* const use = kUsesOfTexts[GetParam()];
  const Error error = MustFail(fmt::format("{{% set x = {} %}}", use));
  EXPECT_EQ(error.code, ErrorCode::kResourceExhausted) << use;
  EXPECT_THAT(error.message, HasSubstr("MiB of memory")) << use;
}

TEST(ChatTemplate, LongTextsThatFitAreMade) {
  EXPECT_EQ(*Render("{{ (('\\n' * 20000000) | indent(0)) | length }}"), "20000000");
  // Pieces of a long text make what it makes as a whole.
  EXPECT_EQ(*Render("{{ (('\u00e9\u4e16a' * 90000) | tojson(ensure_ascii=true)).count('\\\\u00e9"
                    "\\\\u4e16a') }} {{ ('x' ~ '\U0001f600' * 90000) | tojson | length }}"),
            "90000 90003");
}

// 2.6 MB: a list of its characters would take more than a rendering may.
TEST(ChatTemplate, LongMessagesAreCutWithoutAListOfTheirCharacters) {
  std::string content = "<think>\u00e9";
  for (int i = 0; i < 220'000; ++i) content += "reasoning \u00e9";
  const nlohmann::ordered_json messages = {
      {{"role", "assistant"}, {"content", content + "</think>\u4e16yes"}}};
  const auto text = Render(
      "{% set c = messages[0].content %}{{ c.split('</think>')[-1] }} {{ c.rsplit('</think>', "
      "1)[1] "
      "}} {{ c[0] }}{{ c[-4] }}{{ c[7] }} {{ c[:8] }} {{ c[-4:] }} {{ c[-4:-1] }} {{ c | first "
      "}}{{ "
      "c | last }} {{ c[:-13:-4] }} {{ c[99999999] is defined }} {{ c[99999999:] }}",
      messages);
  ASSERT_TRUE(text.ok()) << text.error().message;
  EXPECT_EQ(*text,
            "\u4e16yes \u4e16yes <\u4e16\u00e9 <think>\u00e9 \u4e16yes \u4e16ye <s s>h False ");
}

TEST(ChatTemplate, MessagesOfErrorsAreCutAtACharacter) {
  const Error error = MustFail("{{ raise_exception('x' ~ '\u00e9' * 3000000) }}");
  EXPECT_EQ(error.message.size(), 2047 + 3);
  EXPECT_THAT(error.message, HasSubstr("\u00e9\u2026"));
  EXPECT_LT(MustFail("{% set n = 'n' * 3000000 %}{{ [1] | map(n) | list }}").message.size(), 3000);
}

// As a server would hand it over that does not look at its clients' bytes.
TEST(ChatTemplate, WhatItCannotTakeIsTheConversationsError) {
  const auto text = Render("{{ messages[0].keys() }}", {{{"\xffno number", 1}}});
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(text.error().message, HasSubstr("cannot take this conversation"));
}

TEST(ChatTemplate, SplitsAndSearchesFromTheRight) {
  EXPECT_EQ(
      *Render("{{ 'aaaa'.rsplit('aa', 1) }}{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a-b-c'.split('-', 1) "
              "}}{{ 'a--b'.rfind('-') }}{{ '\u00e9x\u00e9x'.rfind('x') }}{{ 'ab'.rfind('') }}"),
      "['aa', '']['a-b', 'c']['a', 'b-c']232");
  EXPECT_EQ(*Render("{{ '\u3000 x\u3000'.strip() }}|{{ '\u00e9x\u00e9'.strip('\u00e9') }}|{{ "
                    "'\u00e9x\u00e9'.rstrip('\u00e9') }}|{{ 'xax'.lstrip('x') }}"),
            "x|x|\u00e9x|ax");
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

TEST(ChatTemplate, ArgumentsAndCharactersCountAsWhatTheyTake) {
  // Named arguments, copied for every item.
  std::string named = "{{ range(100000) | map('string'";
  for (int i = 0; i < 2000; ++i) named += ", a" + std::to_string(i) + "=1";
  EXPECT_EQ(MustFail(named + ") | list | length }}").code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(*Render("{{ 'a\u00e9\u4e16' | reverse }}|{{ '12'.isdigit() }}{{ '1a'.isdigit() }}"
                    "{{ ''.isspace() }}{{ '\u3000 '.isspace() }}"),
            "\u4e16\u00e9a|TrueFalseFalseTrue");
  EXPECT_EQ(*Render("{{ ' a\u3000b  c d '.split() }}{{ ' a b  c '.split(none, 1) }}"
                    "{{ [1, 2, 1, '1', 2] | unique | list }}"),
            "['a', 'b', 'c', 'd']['a', 'b  c '][1, 2, '1']");
}

TEST(ChatTemplate, TheMessagesCannotBeChangedAndMustBeAList) {
  EXPECT_FALSE(Render("{{ messages.append(1) }}").ok());
  EXPECT_FALSE(Render("{{ messages[0].update({'role': 'x'}) }}").ok());
  EXPECT_FALSE(Render("x", nlohmann::ordered_json::object()).ok());
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
  auto source = ChatTemplateSourceOf(**file);
  ASSERT_TRUE(source.ok()) << source.error().message;
  auto parsed = ChatTemplate::Make(*source);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(*(*parsed)->Render({.messages = kMessages, .tools = nullptr}), "<b>Hi<a>");
}

TEST(ChatTemplate, ABaseModelHasNone) {
  const auto bytes = GgufWriter().Uint("x", 1).Bytes();
  auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  auto source = ChatTemplateSourceOf(**file);
  ASSERT_TRUE(source.ok()) << source.error().message;
  auto parsed = ChatTemplate::Make(*source);
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(parsed.error().message, HasSubstr("model.gguf: the model has no chat template"));
}

}  // namespace
}  // namespace quern
