#include "runtime/tokenizer/chat_template_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "runtime/tokenizer/chat_template.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using nlohmann::ordered_json;
using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

const ChatTemplateSource kModel = {
    .file = "model.gguf",
    .templates = {{"default", "the model's"}},
    .tokens = {{"bos_token", "<gguf bos>"}, {"eos_token", "<gguf eos>"}}};
const ordered_json kHello = {{{"role", "user"}, {"content", "Hi"}}};
const ordered_json kTools = {{{"type", "function"}, {"function", {{"name", "f"}}}}};

Error FileError(std::string_view bytes) {
  const auto source = ParseChatTemplateFile(bytes, "dir/file", kModel);
  EXPECT_FALSE(source.ok());
  return source.ok() ? Error() : source.error();
}

std::string RenderOf(const ChatTemplateSource& source, const ordered_json& tools = nullptr,
                     std::string_view name = "") {
  const auto made = ChatTemplate::Make(source, name);
  if (!made) return made.error().message;
  const auto text = (*made)->Render({.messages = kHello, .tools = tools});
  return text ? *text : text.error().message;
}

TEST(ChatTemplateFile, IsATemplateWithTheModelsTokens) {
  for (const std::string_view bytes :
       {"{{ bos_token }}{{ messages[0].content }}\n", "\xef\xbb\xbf{{ bos_token }}Hi",
        "{%- if true %}{{ bos_token }}Hi{% endif %}"}) {
    const auto source = ParseChatTemplateFile(bytes, "x", kModel);
    ASSERT_TRUE(source.ok()) << source.error().message;
    EXPECT_EQ(RenderOf(*source), "<gguf bos>Hi");
  }
}

TEST(ChatTemplateFile, IsAConfigurationWithItsOwnTokens) {
  const auto source = ParseChatTemplateFile(
      R"({"added_tokens_decoder": {"0": {"content": "x", "nested": [[[[[[1]]]]]]}},
          "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": false},
          "eos_token": "</s>", "pad_token": null, "model_max_length": 1e30,
          "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}[{{ pad_token }}]"})",
      "tokenizer_config.json", kModel);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_THAT(source->tokens, ElementsAre(Pair("bos_token", "<s>"), Pair("eos_token", "</s>"),
                                          Pair("pad_token", "")));
  EXPECT_EQ(RenderOf(*source), "<s>Hi</s>[]");

  const auto silent =
      ParseChatTemplateFile(R"( {"chat_template": "{{ eos_token }}"})", "x", kModel);
  ASSERT_TRUE(silent.ok()) << silent.error().message;
  EXPECT_EQ(RenderOf(*silent), "<gguf eos>");
}

TEST(ChatTemplateFile, OfSeveralTheDefaultIsTakenAndToolUseWithTools) {
  const auto source = ParseChatTemplateFile(
      R"({"chat_template": [{"name": "default", "template": "plain"},
                            {"name": "tool_use", "template": "{{ tools[0].function.name }}<tool_call>"},
                            {"name": "rag", "template": "found"}]})",
      "c.json", kModel);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_EQ(RenderOf(*source), "plain");
  EXPECT_EQ(RenderOf(*source, kTools), "f<tool_call>");
  EXPECT_EQ(RenderOf(*source, nullptr, "rag"), "found");
  EXPECT_EQ(RenderOf(*source, kTools, "rag"), "found");
  EXPECT_EQ(RenderOf(*source, kTools, "default"), "plain");
  EXPECT_EQ(
      RenderOf(*source, kTools, "no"),
      "c.json: there is no chat template named 'no', but 'default', 'tool_use', 'rag': choose "
      "with --chat-template-name");
  const auto made = ChatTemplate::Make(*source);
  EXPECT_TRUE((*made)->KnowsToolCalls(/*with_tools=*/true));
  EXPECT_FALSE((*made)->KnowsToolCalls(/*with_tools=*/false));
  EXPECT_FALSE((*ChatTemplate::Make(*source, "rag"))->KnowsToolCalls(true));
}

TEST(ChatTemplateFile, AToolUseThatIsBadIsLeftOutUnlessItIsAskedFor) {
  const auto source = ParseChatTemplateFile(
      R"({"chat_template": [{"name": "default", "template": "{{ tools | length }}"},
                            {"name": "tool_use", "template": "<tool_call>{{ tools }}{% bad"}]})",
      "c.json", kModel);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_EQ(RenderOf(*source, kTools), "1");
  const auto made = ChatTemplate::Make(*source);
  ASSERT_NE((*made)->LeftOut(), nullptr);
  EXPECT_THAT((*made)->LeftOut()->message,
              HasSubstr("c.json: the template 'tool_use': chat template, line 1"));
  EXPECT_FALSE((*made)->KnowsToolCalls(/*with_tools=*/true));
  EXPECT_EQ((*ChatTemplate::Make(*source, "default"))->LeftOut(), nullptr);
  EXPECT_THAT(RenderOf(*source, kTools, "tool_use"), HasSubstr("the template 'tool_use'"));
}

TEST(ChatTemplateFile, WithoutADefaultOneMustBeNamed) {
  const auto source = ParseChatTemplateFile(
      R"({"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "{% bad"}]})",
      "c.json", kModel);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_THAT(RenderOf(*source), HasSubstr("no chat template named 'default', but 'a', 'b'"));
  EXPECT_EQ(RenderOf(*source, nullptr, "a"), "A");
  EXPECT_THAT(RenderOf(*source, nullptr, "b"),
              HasSubstr("c.json: the template 'b': chat template, line 1"));
}

TEST(ChatTemplateFile, SaysWhatIsWrongAndWhatWouldBeRight) {
  EXPECT_EQ(
      FileError("").message,
      "dir/file: it is empty: expected a Jinja template (chat_template.jinja), or a JSON file "
      "with the member 'chat_template' (tokenizer_config.json)");
  EXPECT_THAT(FileError(" \n").message, HasSubstr("it is empty"));
  EXPECT_THAT(FileError("GGUF\x03").message, HasSubstr("it is a GGUF file"));
  EXPECT_THAT(FileError(std::string_view("a\0b", 3)).message, HasSubstr("binary"));
  EXPECT_THAT(FileError(std::string(kMaxChatTemplateFileBytes + 1, 'x')).message,
              HasSubstr("larger than 16 MiB"));
  EXPECT_THAT(FileError("{\"chat_template\": \"x\",").message,
              HasSubstr("not valid JSON at byte 23"));
  EXPECT_THAT(FileError("{}").message,
              HasSubstr("it has no 'chat_template'. Where a model's lies in a "
                        "file of its own, chat_template.jinja"));
  EXPECT_THAT(FileError("{\"chat_template\": null}").message,
              HasSubstr("it has no 'chat_template'"));
  EXPECT_THAT(FileError("{\"chat_template\": 1}").message,
              HasSubstr("must be a string, or a list"));
  EXPECT_THAT(FileError("{\"chat_template\": []}").message,
              HasSubstr("must be a string, or a list"));
  EXPECT_THAT(
      FileError("{\"chat_template\": [{\"name\": \"a\"}]}").message,
      HasSubstr("'chat_template[0]' must be an object with the strings 'name' and 'template'"));
  EXPECT_THAT(
      FileError("{\"chat_template\": [{\"name\": \"a\", \"template\": \"\"}, {\"name\": \"a\", "
                "\"template\": \"\"}]}")
          .message,
      HasSubstr("two templates named 'a'"));
  EXPECT_THAT(FileError("{\"chat_template\": \"x\", \"bos_token\": 5}").message,
              HasSubstr("'bos_token' must be a string"));
  std::string many = "{\"chat_template\": [";
  for (int i = 0; i < 65; ++i) {
    many += fmt::format("{}{{\"name\": \"{}\", \"template\": \"\"}}", i ? "," : "", i);
  }
  EXPECT_THAT(FileError(many + "]}").message, HasSubstr("lists 65 templates: at most 64"));
}

// What does not matter is not kept, however large or deep it is.
TEST(ChatTemplateFile, OnlyItsOwnMembersAreKept) {
  std::string deep = "{\"added\": ";
  for (int i = 0; i < 200000; ++i) deep += '[';
  for (int i = 0; i < 200000; ++i) deep += ']';
  EXPECT_TRUE(ParseChatTemplateFile(deep + ", \"chat_template\": \"x\"}", "x", kModel).ok());
  std::string inside = "{\"chat_template\": ";
  for (int i = 0; i < 200000; ++i) inside += '[';
  for (int i = 0; i < 200000; ++i) inside += ']';
  EXPECT_FALSE(ParseChatTemplateFile(inside + "}", "x", kModel).ok());
}

TEST(ChatTemplateFile, IsReadFromDisk) {
  const auto directory = std::filesystem::path(::testing::TempDir()) / "quern chat template";
  std::filesystem::create_directories(directory);
  const auto path = directory / "a.jinja";
  std::ofstream(path) << "{{ messages[0].content }}";
  const auto source = ReadChatTemplateFile(path, kModel);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_EQ(RenderOf(*source), "Hi");
  const auto missing = ReadChatTemplateFile(directory / "b.jinja", kModel);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(missing.error().message,
              HasSubstr("b.jinja: there is no such file: expected a Jinja"));
  EXPECT_THAT(ReadChatTemplateFile(directory, kModel).error().message, HasSubstr("is a directory"));
  const auto endless = ReadChatTemplateFile("/dev/zero", kModel);
  ASSERT_FALSE(endless.ok());
  EXPECT_THAT(endless.error().message, HasSubstr("larger than 16 MiB"));
  std::filesystem::remove_all(directory);
}

TEST(ChatTemplateOfGguf, HasThoseWithNamesAndTheTokens) {
  const auto bytes = GgufWriter()
                         .String("tokenizer.chat_template", "{{ bos_token }}plain{{ unk_token }}")
                         .String("tokenizer.chat_template.tool_use", "with {{ tools | length }}")
                         .String("tokenizer.chat_templates_of_another_kind", "x")
                         .Strings("tokenizer.ggml.tokens", {"<a>", "<b>"})
                         .Uint("tokenizer.ggml.bos_token_id", 1)
                         .Uint("tokenizer.ggml.unknown_token_id", 0)
                         .Uint("tokenizer.ggml.padding_token_id", 4294967295)
                         .Bytes();
  const auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  const auto source = ChatTemplateSourceOf(**file);
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_THAT(source->templates, ElementsAre(Pair("default", "{{ bos_token }}plain{{ unk_token }}"),
                                             Pair("tool_use", "with {{ tools | length }}")));
  EXPECT_THAT(source->tokens, ElementsAre(Pair("bos_token", "<b>"), Pair("eos_token", ""),
                                          Pair("unk_token", "<a>")));
  EXPECT_EQ(RenderOf(*source), "<b>plain<a>");
  EXPECT_EQ(RenderOf(*source, kTools), "with 1");
}

TEST(ChatTemplateOfGguf, ATokenThatIsNoTextIsAnError) {
  const auto bytes = GgufWriter()
                         .Strings("tokenizer.ggml.tokens", {"<a>", "<\xff>"})
                         .Uint("tokenizer.ggml.bos_token_id", 0)
                         .Uint("tokenizer.ggml.eos_token_id", 1)
                         .Bytes();
  const auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  const auto source = ChatTemplateSourceOf(**file);
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(
      source.error().message,
      "model.gguf: tokenizer.ggml.eos_token_id is 1, a token whose text is not valid UTF-8 at "
      "byte 1: chat templates cannot write it");
}

TEST(ChatTemplateOfGguf, ATokenThatIsNoneIsAnError) {
  const auto bytes = GgufWriter()
                         .Strings("tokenizer.ggml.tokens", {"<a>"})
                         .Uint("tokenizer.ggml.eos_token_id", 1)
                         .Bytes();
  const auto file = GgufFile::Parse(AsBytes(bytes), "model.gguf");
  ASSERT_TRUE(file.ok());
  const auto source = ChatTemplateSourceOf(**file);
  ASSERT_FALSE(source.ok());
  EXPECT_EQ(source.error().message,
            "model.gguf: tokenizer.ggml.eos_token_id is 1, which is no token");
}

}  // namespace
}  // namespace quern
