#include "runtime/tokenizer/jinja/interpreter.h"

#include <algorithm>
#include <cmath>

#include "runtime/tokenizer/utf8.h"

namespace quern::jinja {

using Kind = Expression::Kind;

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::vector<std::string_view> Characters(std::string_view text) {
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    const size_t length = std::max<size_t>(Utf8CharBytes(text), 1);
    characters.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return characters;
}

// Counts how deep evaluation is nested, macros within macros included.
class Interpreter::Depth {
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

Interpreter::Interpreter(Dict globals, const Limits& limits) : scopes_(1), limits_(limits) {
  for (auto& [name, value] : globals) scopes_[0][name] = std::move(value);
}

std::string Interpreter::Render(const Body& body) {
  std::string out;
  Execute(body, out);
  return out;
}

void Interpreter::Charge(uint64_t bytes, int line) {
  bytes_ += std::min(bytes, limits_.bytes + 1);
  if (bytes_ > limits_.bytes) {
    Fail(ErrorCode::kResourceExhausted, line, "rendering takes more than {} MiB of memory",
         limits_.bytes >> 20);
  }
}

void Interpreter::Step(int line) {
  if (++steps_ > limits_.steps) {
    Fail(ErrorCode::kResourceExhausted, line, "rendering takes more than {} steps", limits_.steps);
  }
}

void Interpreter::Emit(std::string_view text, int line, std::string& out) {
  if (out.size() + text.size() > limits_.output_bytes) {
    Fail(ErrorCode::kResourceExhausted, line, "the text grows beyond {} MiB",
         limits_.output_bytes >> 20);
  }
  out += text;
}

Interpreter::Flow Interpreter::Execute(const Body& body, std::string& out) {
  for (const auto& statement : body) {
    const Depth depth(*this, statement->line);
    Step(statement->line);
    Flow flow = Flow::kNext;
    switch (statement->kind) {
      case Statement::Kind::kText:
        Emit(statement->text, statement->line, out);
        break;
      case Statement::Kind::kOutput:
        Emit(Evaluate(*statement->expression).ToString(), statement->line, out);
        break;
      case Statement::Kind::kIf:
        for (const auto& [condition, branch] : statement->branches) {
          if (condition && !Evaluate(*condition).Truth()) continue;
          flow = Execute(branch, out);
          break;
        }
        break;
      case Statement::Kind::kFor:
        flow = ExecuteFor(*statement, out);
        break;
      case Statement::Kind::kSet:
        ExecuteSet(*statement);
        break;
      case Statement::Kind::kSetBlock: {
        std::string text;
        flow = Execute(statement->body, text);
        Charge(text.size(), statement->line);
        scopes_.back()[statement->targets[0]] = Value::Text(std::move(text));
        break;
      }
      case Statement::Kind::kMacro:
        scopes_.back()[statement->text] =
            Value(Value::Data(Callable{statement->text, statement.get(), nullptr}));
        break;
      case Statement::Kind::kGroup:
        flow = Execute(statement->body, out);
        break;
      case Statement::Kind::kBreak:
        return Flow::kBreak;
      case Statement::Kind::kContinue:
        return Flow::kContinue;
    }
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteFor(const Statement& loop, std::string& out) {
  List items = Iterate(Evaluate(*loop.expression), loop.line);
  if (loop.condition) {
    List kept;
    for (const Value& item : items) {
      scopes_.emplace_back();
      Assign(loop.targets, item, loop.line);
      if (Evaluate(*loop.condition).Truth()) kept.push_back(item);
      scopes_.pop_back();
    }
    items = std::move(kept);
  }
  const auto count = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < count; ++i) {
    Step(loop.line);
    scopes_.emplace_back();
    Assign(loop.targets, items[i], loop.line);
    Dict state = {
        {"index", Value::Int(i + 1)},
        {"index0", Value::Int(i)},
        {"revindex", Value::Int(count - i)},
        {"revindex0", Value::Int(count - i - 1)},
        {"first", Value::Bool(i == 0)},
        {"last", Value::Bool(i + 1 == count)},
        {"length", Value::Int(count)},
        {"previtem", i > 0 ? items[i - 1] : Value()},
        {"nextitem", i + 1 < count ? items[i + 1] : Value()},
        {"cycle",
         Value(Value::Data(Callable{"cycle", nullptr, std::make_shared<Value>(Value::Int(i))}))}};
    scopes_.back()["loop"] = Value::Of(std::move(state));
    const Flow flow = Execute(loop.body, out);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return items.empty() ? Execute(loop.else_body, out) : Flow::kNext;
}

void Interpreter::ExecuteSet(const Statement& set) {
  Value value = Evaluate(*set.expression);
  if (set.text.empty()) return Assign(set.targets, value, set.line);
  const Value object = Lookup(set.targets[0]);
  const auto* space = object.As<std::shared_ptr<Namespace>>();
  if (!space) {
    Fail(ErrorCode::kInvalidArgument, set.line,
         "attributes can only be set on a namespace(), '{}' is {}", set.targets[0],
         object.TypeName());
  }
  for (auto& [key, old] : (*space)->attributes) {
    if (key == set.text) {
      old = std::move(value);
      return;
    }
  }
  Charge(set.text.size() + sizeof(Dict::value_type), set.line);
  (*space)->attributes.emplace_back(set.text, std::move(value));
}

void Interpreter::Assign(const std::vector<std::string>& targets, const Value& value, int line) {
  if (targets.size() == 1) {
    scopes_.back()[targets[0]] = value;
    return;
  }
  const List parts = Iterate(value, line);
  if (parts.size() != targets.size()) {
    Fail(ErrorCode::kInvalidArgument, line, "{} values cannot be given to {} names", parts.size(),
         targets.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) scopes_.back()[targets[i]] = parts[i];
}

Value Interpreter::Lookup(const std::string& name) const {
  for (size_t i = scopes_.size(); i-- > floor_;) {
    if (const auto found = scopes_[i].find(name); found != scopes_[i].end()) return found->second;
  }
  if (const auto found = scopes_[0].find(name); found != scopes_[0].end()) return found->second;
  for (const char* function : {"raise_exception", "namespace", "range", "dict"}) {
    if (name == function) return Value(Value::Data(Callable{name, nullptr, nullptr}));
  }
  return Value(Value::Data(Undefined{name}));
}

Value Interpreter::Evaluate(const Expression& expression) {
  const Depth depth(*this, expression.line);
  Step(expression.line);
  const auto& args = expression.args;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.value;
    case Kind::kName:
      return Lookup(expression.name);
    case Kind::kList: {
      List list;
      for (const auto& arg : args) list.push_back(Evaluate(*arg));
      Charge(list.size() * sizeof(Value), expression.line);
      return Value::Of(std::move(list));
    }
    case Kind::kDict: {
      Dict dict;
      for (size_t i = 0; i + 1 < args.size(); i += 2) {
        const Value key = Evaluate(*args[i]);
        if (!key.text())
          Fail(ErrorCode::kUnsupported, expression.line, "keys of dicts must be strings");
        Value value = Evaluate(*args[i + 1]);
        std::erase_if(dict, [&](const auto& entry) { return entry.first == *key.text(); });
        dict.emplace_back(*key.text(), std::move(value));
      }
      Charge(dict.size() * sizeof(Dict::value_type), expression.line);
      return Value::Of(std::move(dict));
    }
    case Kind::kAttribute:
      return GetAttribute(Evaluate(*args[0]), expression.name, expression.line);
    case Kind::kItem: {
      const Value object = Evaluate(*args[0]);
      return GetItem(object, Evaluate(*args[1]), expression.line);
    }
    case Kind::kSlice:
      return EvaluateSlice(expression);
    case Kind::kCall:
      return EvaluateCall(expression);
    case Kind::kFilter: {
      const Value input = Evaluate(*args[0]);
      return ApplyFilter(expression.name, input, EvaluateArguments(expression), expression.line);
    }
    case Kind::kTest: {
      const Value input = Evaluate(*args[0]);
      return Value::Bool(
          ApplyTest(expression.name, input, EvaluateArguments(expression), expression.line));
    }
    case Kind::kUnary:
      return EvaluateUnary(expression);
    case Kind::kBinary:
      return EvaluateBinary(expression);
    case Kind::kCompare:
      return EvaluateCompare(expression);
    case Kind::kConditional:
      if (Evaluate(*args[0]).Truth()) return Evaluate(*args[1]);
      return args[2] ? Evaluate(*args[2]) : Value();
  }
  return Value();
}

Value Interpreter::EvaluateUnary(const Expression& expression) {
  const Value value = Evaluate(*expression.args[0]);
  if (expression.name == "not") return Value::Bool(!value.Truth());
  int64_t integer;
  double number;
  const bool negative = expression.name == "-";
  if (value.AsInt(&integer))
    return Value::Int(negative ? static_cast<int64_t>(0 - static_cast<uint64_t>(integer))
                               : integer);
  if (value.AsNumber(&number)) return Value(Value::Data(negative ? -number : number));
  Fail(ErrorCode::kInvalidArgument, expression.line, "'{}' needs a number, not {}", expression.name,
       value.TypeName());
}

Value Interpreter::EvaluateBinary(const Expression& expression) {
  const std::string& op = expression.name;
  Value left = Evaluate(*expression.args[0]);
  if (op == "and") return left.Truth() ? Evaluate(*expression.args[1]) : left;
  if (op == "or") return left.Truth() ? left : Evaluate(*expression.args[1]);
  const Value right = Evaluate(*expression.args[1]);
  if (op == "~") {
    std::string text = left.ToString() + right.ToString();
    Charge(text.size(), expression.line);
    return Value::Text(std::move(text));
  }
  return Arithmetic(op, left, right, expression.line);
}

Value Interpreter::Arithmetic(const std::string& op, const Value& a, const Value& b, int line) {
  for (const Value* value : {&a, &b}) {
    if (const auto* undefined = value->As<Undefined>()) {
      Fail(ErrorCode::kInvalidArgument, line, "'{}' is undefined", undefined->name);
    }
  }
  if (op == "+" && a.text() && b.text()) {
    Charge(a.text()->size() + b.text()->size(), line);
    return Value::Text(*a.text() + *b.text());
  }
  if (op == "+" && a.list() && b.list()) {
    Charge((a.list()->size() + b.list()->size()) * sizeof(Value), line);
    List list = *a.list();
    list.insert(list.end(), b.list()->begin(), b.list()->end());
    return Value::Of(std::move(list));
  }
  int64_t ia, ib, result = 0;
  if (op == "*" && a.text() && b.AsInt(&ib)) {
    const uint64_t times = ib > 0 ? static_cast<uint64_t>(ib) : 0;
    if (!a.text()->empty() && times > limits_.bytes / a.text()->size())
      Charge(limits_.bytes + 1, line);
    Charge(times * a.text()->size(), line);
    std::string text;
    for (uint64_t i = 0; i < times && !a.text()->empty(); ++i) text += *a.text();
    return Value::Text(std::move(text));
  }
  if (a.AsInt(&ia) && b.AsInt(&ib) && op != "/") {
    bool overflows = false;
    if (op == "+") overflows = __builtin_add_overflow(ia, ib, &result);
    if (op == "-") overflows = __builtin_sub_overflow(ia, ib, &result);
    if (op == "*") overflows = __builtin_mul_overflow(ia, ib, &result);
    if (op == "//" || op == "%") {
      if (ib == 0) Fail(ErrorCode::kInvalidArgument, line, "division by zero");
      overflows = ia == INT64_MIN && ib == -1;
      if (!overflows) {  // rounds down, as Python does
        int64_t quotient = ia / ib;
        if (ia % ib != 0 && (ia < 0) != (ib < 0)) --quotient;
        result = op == "//" ? quotient : ia - quotient * ib;
      }
    }
    if (overflows) Fail(ErrorCode::kUnsupported, line, "an integer grows beyond 64 bits");
    return Value::Int(result);
  }
  double da, db;
  if (a.AsNumber(&da) && b.AsNumber(&db)) {
    if (op == "+") return Value(Value::Data(da + db));
    if (op == "-") return Value(Value::Data(da - db));
    if (op == "*") return Value(Value::Data(da * db));
    if (db == 0) Fail(ErrorCode::kInvalidArgument, line, "division by zero");
    if (op == "/") return Value(Value::Data(da / db));
    if (op == "//") return Value(Value::Data(std::floor(da / db)));
    return Value(Value::Data(da - std::floor(da / db) * db));
  }
  Fail(ErrorCode::kInvalidArgument, line, "'{}' does not work on {} and {}", op, a.TypeName(),
       b.TypeName());
}

Value Interpreter::EvaluateCompare(const Expression& expression) {
  Value left = Evaluate(*expression.args[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    const std::string& op = expression.operators[i];
    Value right = Evaluate(*expression.args[i + 1]);
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = Equal(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = Contains(right, left, expression.line) == (op == "in");
    } else {
      const int order = Compare(left, right, expression.line);
      holds = (op == "<" && order < 0) || (op == ">" && order > 0) || (op == "<=" && order <= 0) ||
              (op == ">=" && order >= 0);
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

int Interpreter::Compare(const Value& a, const Value& b, int line) {
  double da, db;
  if (a.AsNumber(&da) && b.AsNumber(&db)) return da < db ? -1 : da > db;
  if (a.text() && b.text()) return a.text()->compare(*b.text()) < 0 ? -1 : *a.text() != *b.text();
  Fail(ErrorCode::kInvalidArgument, line, "{} and {} have no order", a.TypeName(), b.TypeName());
}

bool Interpreter::Contains(const Value& container, const Value& item, int line) {
  if (container.text()) {
    if (!item.text()) {
      Fail(ErrorCode::kInvalidArgument, line, "'in' a string needs a string on its left, not {}",
           item.TypeName());
    }
    return container.text()->find(*item.text()) != std::string::npos;
  }
  if (container.dict()) return item.text() && FindKey(*container.dict(), *item.text());
  const List items = container.list() ? List{} : Iterate(container, line);
  for (const Value& one : container.list() ? *container.list() : items) {
    Step(line);
    if (Equal(one, item)) return true;
  }
  return false;
}

List Interpreter::Iterate(const Value& value, int line) {
  if (value.list()) {
    Charge(value.list()->size() * sizeof(Value), line);
    return *value.list();
  }
  if (value.is_undefined()) return {};
  List items;
  if (value.dict()) {
    Charge(value.dict()->size() * sizeof(Value), line);
    for (const auto& [key, item] : *value.dict()) items.push_back(Value::Text(key));
    return items;
  }
  if (value.text()) {
    Charge(value.text()->size() * (sizeof(Value) + sizeof(std::string)), line);
    for (const std::string_view character : Characters(*value.text())) {
      items.push_back(Value::Text(std::string(character)));
    }
    return items;
  }
  Fail(ErrorCode::kInvalidArgument, line, "a value of type {} cannot be gone through",
       value.TypeName());
}

Value Interpreter::GetAttribute(const Value& object, const std::string& name, int line) {
  if (const auto* undefined = object.As<Undefined>()) {
    Fail(ErrorCode::kInvalidArgument, line, "'{}' is undefined, so it has no '{}'", undefined->name,
         name);
  }
  if (const auto* space = object.As<std::shared_ptr<Namespace>>()) {
    const Value* value = FindKey((*space)->attributes, name);
    return value ? *value : Value(Value::Data(Undefined{name}));
  }
  if (HasMethod(object, name)) {
    return Value(Value::Data(Callable{name, nullptr, std::make_shared<Value>(object)}));
  }
  if (object.dict()) {
    if (const Value* value = FindKey(*object.dict(), name)) return *value;
  }
  return Value(Value::Data(Undefined{name}));
}

Value Interpreter::GetItem(const Value& object, const Value& key, int line) {
  if (const auto* undefined = object.As<Undefined>()) {
    Fail(ErrorCode::kInvalidArgument, line, "'{}' is undefined, so it has no items",
         undefined->name);
  }
  int64_t index;
  if (key.AsInt(&index) && (object.list() || object.text())) {
    // A list's item is taken where it lies; a text's needs its characters, which are charged.
    const List characters = object.list() ? List{} : Iterate(object, line);
    const List& items = object.list() ? *object.list() : characters;
    const auto size = static_cast<int64_t>(items.size());
    if (index < 0) index += size;
    if (index < 0 || index >= size)
      return Value(Value::Data(Undefined{fmt::format("item {}", key.ToString())}));
    return items[static_cast<size_t>(index)];
  }
  if (key.text()) {
    if (object.dict()) {
      if (const Value* value = FindKey(*object.dict(), *key.text())) return *value;
    }
    return GetAttribute(object, *key.text(), line);
  }
  return Value(Value::Data(Undefined{key.ToString()}));
}

Value Interpreter::EvaluateSlice(const Expression& expression) {
  const Value object = Evaluate(*expression.args[0]);
  if (!object.list() && !object.text()) {
    Fail(ErrorCode::kInvalidArgument, expression.line,
         "only lists and strings can be sliced, not {}", object.TypeName());
  }
  const List items = Iterate(object, expression.line);
  const auto size = static_cast<int64_t>(items.size());
  int64_t bounds[3] = {0, size, 1};
  bool given[3] = {false, false, false};
  for (size_t i = 0; i < 3; ++i) {
    if (!expression.args[i + 1]) continue;
    const Value bound = Evaluate(*expression.args[i + 1]);
    if (bound.is_none()) continue;
    if (!bound.AsInt(&bounds[i]))
      Fail(ErrorCode::kInvalidArgument, expression.line, "a slice needs integers");
    given[i] = true;
  }
  const int64_t step = bounds[2];
  if (step == 0) Fail(ErrorCode::kInvalidArgument, expression.line, "a slice's step cannot be 0");
  // As Python clamps them (PySlice_AdjustIndices).
  const int64_t lowest = step < 0 ? -1 : 0;
  const int64_t highest = step < 0 ? size - 1 : size;
  const auto clamp = [&](int64_t bound) {
    return std::clamp(bound < 0 ? std::max(bound, -size - 1) + size : bound, lowest, highest);
  };
  const int64_t begin = given[0] ? clamp(bounds[0]) : (step < 0 ? highest : 0);
  const int64_t end = given[1] ? clamp(bounds[1]) : (step < 0 ? -1 : size);
  List part;
  std::string text;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (object.text()) {
      text += *items[static_cast<size_t>(i)].text();
    } else {
      part.push_back(items[static_cast<size_t>(i)]);
    }
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  Charge(text.size() + part.size() * sizeof(Value), expression.line);
  return object.text() ? Value::Text(std::move(text)) : Value::Of(std::move(part));
}

Arguments Interpreter::EvaluateArguments(const Expression& call) {
  Arguments arguments;
  for (size_t i = 1; i < call.args.size(); ++i)
    arguments.positional.push_back(Evaluate(*call.args[i]));
  for (const auto& [name, value] : call.named) arguments.named.emplace_back(name, Evaluate(*value));
  return arguments;
}

Value Interpreter::EvaluateCall(const Expression& expression) {
  const Value callee = Evaluate(*expression.args[0]);
  const auto* callable = callee.As<Callable>();
  if (!callable) {
    const auto* undefined = callee.As<Undefined>();
    Fail(undefined ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument, expression.line,
         "'{}' is no function that is known", undefined ? undefined->name : callee.TypeName());
  }
  const Arguments arguments = EvaluateArguments(expression);
  if (callable->macro) return CallMacro(*callable->macro, arguments, expression.line);
  if (callable->object)
    return CallMethod(*callable->object, callable->name, arguments, expression.line);
  return CallFunction(callable->name, arguments, expression.line);
}

Value Interpreter::CallMacro(const Statement& macro, const Arguments& arguments, int line) {
  if (arguments.positional.size() > macro.targets.size()) {
    Fail(ErrorCode::kInvalidArgument, line, "macro '{}' takes {} arguments, {} are given",
         macro.text, macro.targets.size(), arguments.positional.size());
  }
  const size_t floor = std::exchange(floor_, scopes_.size());
  scopes_.emplace_back();
  for (size_t i = 0; i < macro.targets.size(); ++i) {
    const Value* given = arguments.Get(i, macro.targets[i]);
    Value value = Value(Value::Data(Undefined{macro.targets[i]}));
    if (given) {
      value = *given;
    } else if (macro.defaults[i]) {
      value = Evaluate(*macro.defaults[i]);
    }
    scopes_.back()[macro.targets[i]] = std::move(value);
  }
  std::string out;
  Execute(macro.body, out);
  scopes_.pop_back();
  floor_ = floor;
  Charge(out.size(), line);
  return Value::Text(std::move(out));
}

}  // namespace quern::jinja
