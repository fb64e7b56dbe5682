#pragma once

#include <memory>
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
  Interpreter(const Dict& globals, const Limits& limits);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  std::string Render(const Body& body);

  // For the built-in functions: count what they use.
  void Charge(uint64_t bytes, int line);
  void Step(int line);
  // Value's ToString, ToJson, Equal and FindKey, paid for.
  std::string Text(const Value& value, int line);
  std::string Json(const Value& value, int indent, int line);
  bool Same(const Value& a, const Value& b, int line);
  const Value* Find(const Dict& dict, std::string_view key, int line);
  Value MakeNamespace(Dict attributes);

  // builtins.cc
  Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments,
                    int line);
  bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments, int line);
  // methods.cc
  Value CallMethod(const Value& object, const std::string& name, const Arguments& arguments,
                   int line);
  static bool HasMethod(const Value& object, std::string_view name);
  Value CallFunction(const std::string& name, const Arguments& arguments, int line);

  Value GetAttribute(const Value& object, const std::string& name, int line);
  Value GetItem(const Value& object, const Value& key, int line);
  // The items of a list, the keys of a dict, the characters of a text.
  List Iterate(const Value& value, int line);
  bool Contains(const Value& container, const Value& item, int line);
  // -1, 0 or 1; an error if the two have no order.
  int Compare(const Value& a, const Value& b, int line);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::unordered_map<std::string, Value>;
  class Bill;

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
  void Emit(std::string_view text, int line, std::string& out);
  void Assign(const std::vector<std::string>& targets, const Value& value, int line);

  Value Evaluate(const Expression& expression);
  Value EvaluateBinary(const Expression& expression);
  Value EvaluateCompare(const Expression& expression);
  Value EvaluateUnary(const Expression& expression);
  Value EvaluateSlice(const Expression& expression);
  Value EvaluateCall(const Expression& expression);
  Value CallMacro(const Statement& macro, const Arguments& arguments, int line);
  Value Arithmetic(const std::string& op, const Value& a, const Value& b, int line);
  Value Lookup(const std::string& name) const;
  Arguments EvaluateArguments(const Expression& call);

  std::vector<Scope> scopes_;  // [0] is the template's own
  size_t floor_ =
      1;  // below it (but for [0]) are the scopes of a macro's caller, which it does not see
  Limits limits_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;  // all that were made
  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
  int depth_ = 0;
};

// The undefined value that stands for something not there by this name.
Value Missing(std::string_view name);
// std::string::find, in time that is linear even for a part that almost fits everywhere.
size_t FindText(std::string_view text, std::string_view part, size_t from = 0);
// Takes the first character of a text, which is not empty. What is not UTF-8 counts byte by byte.
std::string_view TakeCharacter(std::string_view* text);
size_t CountCharacters(std::string_view text);
// str.strip(), with `left` and `right` saying at which ends: white space as Python knows it, or the
// characters in `set`.
std::string Strip(std::string_view text, bool left, bool right, const std::string* set = nullptr);

}  // namespace quern::jinja
