#include "runtime/server/tool_call_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quern::server {
namespace {

using Kind = ToolCallEvent::Kind;

// "content|f{...}|g{...}": what all events together say.
std::string Join(const std::vector<ToolCallEvent>& events) {
  std::string text;
  for (const ToolCallEvent& event : events) {
    if (event.kind == Kind::kCall) text += '|';
    text += event.text;
  }
  return text;
}

std::string Read(const std::vector<std::string>& pieces, bool parallel = true) {
  ToolCallStream stream({"f", "get_weather"}, parallel);
  std::vector<ToolCallEvent> events;
  for (const std::string& piece : pieces) stream.Push(piece, events);
  stream.Finish(events);
  return Join(events);
}

struct Case {
  const char* text;
  const char* read;
};

const Case kCases[] = {
    {"just text", "just text"},
    {"text that ends with blanks \n", "text that ends with blanks \n"},
    {"a < b, <tool> and <tool_call", "a < b, <tool> and <tool_call"},
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", "|f{\"a\": 1}"},
    {"I look.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n", "I look.|f{}"},
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": "
     "\"}\\\"]\"}]}}\n</tool_call>\n"
     "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {}}\n</tool_call> Done.",
     "|f{\"a\": [1, {\"b\": \"}\\\"]\"}]}|get_weather{}Done."},
    // A mark within a string is text of the string.
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}</tool_call>x",
     "|f{\"a\": \"</tool_call>\"}x"},
    // Another order, another word for the arguments, or none.
    {"<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "|f{\"a\":1}"},
    {"<tool_call>{\"name\": \"f\", \"parameters\": {\"z\": 2, \"a\": 1}}</tool_call>",
     "|f{\"z\":2,\"a\":1}"},
    {"<tool_call>{\"name\": \"f\"}</tool_call>", "|f{}"},
    // No closing mark; the arguments end too soon; the next call begins.
    {"<tool_call>{\"arguments\": {}, \"name\": \"f\"}", "|f{}"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "|f{\"a\": 1}"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": </tool_call>b", "|f{\"a\": b"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {}}\n<tool_call>{\"name\": \"f\", \"arguments\": "
     "{\"b\":2}}",
     "|f{}|f{\"b\":2}"},
    // It forgot the mark and goes on; it speaks of the mark before it uses it.
    {"<tool_call>{\"name\": \"f\", \"arguments\": {}}\nThe answer is 42.", "|f{}The answer is 42."},
    {"Use <tool_call> tags. <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
     "Use<tool_call> tags.|f{}"},
    // What is no call is content.
    {"<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>"},
    {"<tool_call>f(1)</tool_call> x", "<tool_call>f(1)</tool_call> x"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": \"a\"}</tool_call>",
     "<tool_call>{\"name\": \"f\", \"arguments\": \"a\"}</tool_call>"},
    {"a <tool_call>{\"name\": \"f", "a<tool_call>{\"name\": \"f"},
    {"<tool_call>{\"name\": \"f\\u0061\", \"arguments\": {}}</tool_call>",
     "<tool_call>{\"name\": \"f\\u0061\", \"arguments\": {}}</tool_call>"},
};

TEST(ToolCallStream, TellsCallsFromContent) {
  for (const Case& it : kCases) EXPECT_EQ(Read({it.text}), it.read);
}

TEST(ToolCallStream, SaysTheSameHoweverTheTextIsCut) {
  for (const Case& it : kCases) {
    const std::string text = it.text;
    std::vector<std::string> letters;
    for (const char c : text) letters.emplace_back(1, c);
    EXPECT_EQ(Read(letters), it.read);
    for (size_t i = 0; i <= text.size(); ++i) {
      ASSERT_EQ(Read({text.substr(0, i), text.substr(i)}), it.read) << "cut at " << i;
    }
  }
}

TEST(ToolCallStream, NamesTheFunctionAtOnceAndPassesArgumentsOnAsTheyCome) {
  ToolCallStream stream({"f"}, true);
  std::vector<ToolCallEvent> events;
  stream.Push("Well <tool_call>\n{\"name\": \"f\", \"arguments\": {", events);
  EXPECT_EQ(events, (std::vector<ToolCallEvent>{
                        {Kind::kContent, "Well"}, {Kind::kCall, "f"}, {Kind::kArguments, "{"}}));
  events.clear();
  stream.Push("\"city\": \"Par", events);
  EXPECT_EQ(events, (std::vector<ToolCallEvent>{{Kind::kArguments, "\"city\": \"Par"}}));
  EXPECT_EQ(stream.num_calls(), 1u);
}

TEST(ToolCallStream, WithoutParallelCallsTheFirstOneIsAll) {
  const std::string call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  EXPECT_EQ(Read({call + " and " + call}, /*parallel=*/false), "|f{}");
}

TEST(ToolCallStream, HoldsABoundedPartOfTheTextHoweverItIsCut) {
  const std::string texts[] = {
      "<tool_call>{\"x\": \"" + std::string(100000, 'y'),
      "<tool_call>{\"arguments\": {\"x\": \"" + std::string(40000, 'y') +
          "\"}, \"name\": \"f\"}</tool_call>",
      "<tool_call>" + std::string(100000, ' ') + "{\"name\": \"f\", \"arguments\": {}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {}}" + std::string(100000, '}'),
  };
  for (const std::string& text : texts) {
    ToolCallStream stream({"f"}, true);
    std::vector<ToolCallEvent> events;
    for (size_t i = 0; i < text.size(); i += 100) {
      stream.Push(text.substr(i, 100), events);
      ASSERT_LT(stream.held_bytes(), 40000u);
    }
    stream.Finish(events);
    EXPECT_EQ(Join(events), Read({text}));
  }
}

TEST(ToolCallStream, BracketsInStringsAreNoNesting) {
  const std::string marks = std::string(1000, '}') + std::string(1000, '[');
  EXPECT_EQ(
      Read({"<tool_call>{\"arguments\": {\"a\": \"" + marks + "\"}, \"name\": \"f\"}</tool_call>"}),
      "|f{\"a\":\"" + marks + "\"}");
  const std::string deep = "<tool_call>{\"arguments\": {\"s\": \"" + std::string(9000, '}') +
                           "\", \"a\": " + std::string(9000, '[') + std::string(9000, ']') +
                           "}, \"name\": \"f\"}</tool_call>";
  EXPECT_EQ(Read({deep}), deep);
}

TEST(ToolCallStream, DeepNestingIsContentAndNoRecursion) {
  const std::string deep = "<tool_call>{\"x\": " + std::string(100000, '[') + "</tool_call>";
  EXPECT_EQ(Read({deep}), deep);
}

}  // namespace
}  // namespace quern::server
