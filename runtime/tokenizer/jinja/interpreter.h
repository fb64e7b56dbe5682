#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/tokenizer/jinja/ast.h"

namespace quern::jinja {

// What one rendering may use; far above what a chat needs.
struct Limits {
  uint64_t steps = 1'000'000;            // expressions evaluated and statements run
  uint64_t bytes = uint64_t{256} << 20;  // of all values made
  size_t output_bytes = 64 << 20;
  int depth = 600;  // of nested evaluation
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // The argument at `index` or called `name`; null if it was not given.
  const Value* Get(size_t index, std::string_view name) const;
};

// Renders one parsed template once. Throws TemplateError. Semantics are those of Jinja 3.1 with
// Python's values, in the sandbox that Hugging Face renders chat templates in: nothing given can be
// changed.
class Interpreter {
 public:
  // `now`: what strftime_now() tells.
  Interpreter(const Dict& globals, const Limits& limits, std::chrono::system_clock::time_point now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  std::string Render(const Body& body);

  // For the built-in functions: count what they use.
  void Charge(uint64_t bytes, int line);
  void Step(int line);
  // The texts among a call's arguments: what it does with each takes time in proportion to it.
  void ChargeTexts(const Arguments& arguments, int line);
  // Value's ToString, ToJson, Equal, DictKey and FindKey, paid for.
  std::string Text(const Value& value, int line);
  std::string Json(const Value& value, const JsonStyle& style, int line);
  bool Same(const Value& a, const Value& b, int line);
  std::optional<std::string> Key(const Value& value, int line);
  const Value* Find(const Dict& dict, std::string_view key, int line);
  Value MakeNamespace(Dict attributes);

  // filters.cc
  Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                    int line);
  // is_tests.cc
  bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments, int line);
  // methods.cc
  Value CallMethod(const Value& object, const std::string& name, const Arguments& arguments,
                   int line);
  static bool HasMethod(const Value& object, std::string_view name);
  static bool IsHiddenMethod(const Value& object, std::string_view name);
  // functions.cc
  Value CallFunction(const std::string& name, const Arguments& arguments, int line);
  // str.replace(); `limit` < 0: all.
  std::string ReplaceText(const std::string& text, const std::string& from, const std::string& to,
                          int64_t limit, int line);
  Value FormatPercent(const std::string& text, const List& values, int line);
  Value FormatBraces(const std::string& text, const Arguments& arguments, int line);

  Value GetAttribute(const Value& object, const std::string& name, int line);
  Value GetItem(const Value& object, const Value& key, int line);
  // The items of a list, the keys of a dict, the characters of a text.
  List Iterate(const Value& value, int line);
  bool Contains(const Value& container, const Value& item, int line);
  // -1, 0 or 1; an error if the two have no order.
  int Compare(const Value& a, const Value& b, int line);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  // The names of a loop's round, a macro's call or a block that is captured. Lookups go on to the
  // scope around it where it was written, which is `parent`; the last is the template's own, 0.
  struct Scope {
    std::unordered_map<std::string, Value> names;
    size_t parent = 0;
    uint64_t id = 0;
  };
  class Bill;
  // A scope while this lives.
  class Inside {
   public:
    Inside(Interpreter& interpreter, size_t parent)
        : interpreter_(interpreter), before_(interpreter.scope_) {
      interpreter_.scopes_.push_back({{}, parent, ++interpreter_.scopes_made_});
      interpreter_.scope_ = interpreter_.scopes_.size() - 1;
    }
    ~Inside() {
      interpreter_.scopes_.pop_back();
      interpreter_.scope_ = before_;
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Interpreter& interpreter_;
    const size_t before_;
  };

  // Counts how deep evaluation is nested, macros within macros included.
  class Depth {
   public:
    Depth(Interpreter& interpreter, int line) : interpreter_(interpreter) {
      if (++interpreter_.depth_ > interpreter_.limits_.depth) {
        --interpreter_.depth_;
        Fail(ErrorCode::kResourceExhausted, line,
             "nested too deep: a macro that calls itself without end?");
      }
    }
    ~Depth() { --interpreter_.depth_; }

   private:
    Interpreter& interpreter_;
  };

  Flow Execute(const Body& body, std::string& out);
  Flow ExecuteFor(const Statement& loop, std::string& out);
  void ExecuteSet(const Statement& set);
  Flow ExecuteSetBlock(const Statement& set);
  void ExecuteCallBlock(const Statement& block, std::string& out);
  Flow ExecuteFilterBlock(const Statement& block, std::string& out);
  void SetAttribute(const std::string& name, const std::string& attribute, Value value, int line);
  void Emit(std::string_view text, int line, std::string& out);
  void Assign(const std::vector<std::string>& targets, const Value& value, int line);

  Value Evaluate(const Expression& expression);
  Value EvaluateBinary(const Expression& expression);
  Value EvaluateCompare(const Expression& expression);
  Value EvaluateUnary(const Expression& expression);
  Value EvaluateSlice(const Expression& expression);
  Value CharacterAt(std::string_view text, int64_t index, int line);
  // text[begin:end:step] with the bounds as clamped for it.
  std::string SliceText(std::string_view text, int64_t begin, int64_t end, int64_t step, int line);
  Value EvaluateCall(const Expression& expression);
  Value EvaluateDict(const Expression& expression);
  Value MakeMacro(const Statement& macro);
  Value CallMacro(const Callable& callable, const Arguments& arguments, const Value* caller,
                  int line);
  std::string FormatOne(const std::string& spec, char kind, const Value& value, int line);
  Value Arithmetic(const std::string& op, const Value& a, const Value& b, int line);
  Value Lookup(const std::string& name) const;
  Arguments EvaluateArguments(const Expression& call);

  Value& Name(const std::string& name) { return scopes_[scope_].names[name]; }

  std::vector<Scope> scopes_;
  size_t scope_ = 0;  // the one that is filled
  uint64_t scopes_made_ = 0;
  Value captured_;  // what a block's filter is applied to
  const std::chrono::system_clock::time_point now_;
  Limits limits_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // all that were made
  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
  int depth_ = 0;
};

// The undefined value that stands for something not there by this name.
Value Missing(std::string_view name);

}  // namespace quern::jinja
