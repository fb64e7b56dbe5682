// The interpreter's expressions; its statements are in interpreter.cc.

#include <algorithm>
#include <cmath>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {

using Kind = Expression::Kind;

Value Interpreter::Evaluate(const Expression& expression) {
  const Depth depth(*this, expression.line);
  Step(expression.line);
  const auto& args = expression.args;
  switch (expression.kind) {
    case Kind::kLiteral:
      return expression.value;
    case Kind::kName:
      return Lookup(expression.name);
    case Kind::kCaptured:
      return captured_;
    case Kind::kList:
    case Kind::kTuple: {
      List list;
      for (const auto& arg : args) list.push_back(Evaluate(*arg));
      Charge(list.size() * sizeof(Value), expression.line);
      return Value::Of(std::move(list),
                       expression.kind == Kind::kTuple ? ListKind::kTuple : ListKind::kList);
    }
    case Kind::kDict:
      return EvaluateDict(expression);
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

Value Interpreter::EvaluateDict(const Expression& expression) {
  const auto& args = expression.args;
  Dict dict;
  for (size_t i = 0; i + 1 < args.size(); i += 2) {
    const auto key = Key(Evaluate(*args[i]), expression.line);
    if (!key)
      Fail(ErrorCode::kUnsupported, expression.line, "keys of dicts must be strings or integers");
    Value value = Evaluate(*args[i + 1]);
    Charge(LookupBytes(dict, *key) + sizeof(Dict::value_type), expression.line);
    SetKey(dict, *key, std::move(value));
  }
  return Value::Of(std::move(dict));
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
    std::string text = Text(left, expression.line);
    return Value::Text(text + Text(right, expression.line));
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
    if (!a.is_markup() && !b.is_markup()) return Value::Text(*a.text() + *b.text());
    Charge(5 * (a.text()->size() + b.text()->size()), line);
    return Value::Markup((a.is_markup() ? *a.text() : EscapeHtml(*a.text())) +
                         (b.is_markup() ? *b.text() : EscapeHtml(*b.text())));
  }
  if (op == "+" && a.list() && b.list() && a.list_kind() == b.list_kind() &&
      a.list_kind() != ListKind::kIterator) {
    Charge((a.list()->size() + b.list()->size()) * sizeof(Value), line);
    List list = *a.list();
    list.insert(list.end(), b.list()->begin(), b.list()->end());
    return Value::Of(std::move(list), a.list_kind());
  }
  if (op == "%" && a.text()) {
    return FormatPercent(*a.text(), b.list_kind() == ListKind::kTuple ? *b.list() : List{b}, line);
  }
  int64_t ia, ib, result = 0;
  if (op == "*" && (b.text() || b.list()) && a.AsInt(&ia)) return Arithmetic(op, b, a, line);
  if (op == "*" && a.list() && a.list_kind() != ListKind::kIterator && b.AsInt(&ib)) {
    List list;
    for (int64_t i = 0; i < ib && !a.list()->empty(); ++i) {
      Charge(a.list()->size() * sizeof(Value), line);
      list.insert(list.end(), a.list()->begin(), a.list()->end());
    }
    return Value::Of(std::move(list), a.list_kind());
  }
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
      holds = Same(left, right, expression.line) == (op == "==");
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

Value Interpreter::EvaluateSlice(const Expression& expression) {
  const Value object = Evaluate(*expression.args[0]);
  if ((!object.list() && !object.text()) || object.list_kind() == ListKind::kIterator) {
    Fail(ErrorCode::kInvalidArgument, expression.line,
         "only lists and strings can be sliced, not {}", object.TypeName());
  }
  if (object.text()) Charge(object.text()->size(), expression.line);
  const auto size =
      static_cast<int64_t>(object.text() ? CountCharacters(*object.text()) : object.list()->size());
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
  if (object.text())
    return Value::Text(SliceText(*object.text(), begin, end, step, expression.line));
  List part;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    Charge(sizeof(Value), expression.line);
    part.push_back((*object.list())[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::Of(std::move(part), object.list_kind());
}

std::string Interpreter::SliceText(std::string_view text, int64_t begin, int64_t end, int64_t step,
                                   int line) {
  if (step == 1) {
    std::string_view rest = text;
    int64_t at = 0;
    for (; at < begin; ++at) TakeCharacter(&rest);
    const std::string_view from_begin = rest;
    for (; at < end; ++at) TakeCharacter(&rest);
    const size_t size = from_begin.size() - rest.size();
    Charge(size, line);
    return std::string(from_begin.substr(0, size));
  }
  Charge(text.size() + CountCharacters(text) * sizeof(std::string_view), line);
  std::vector<std::string_view> characters;
  while (!text.empty()) characters.push_back(TakeCharacter(&text));
  std::string out;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    out += characters[static_cast<size_t>(i)];
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return out;
}

Arguments Interpreter::EvaluateArguments(const Expression& call) {
  Arguments arguments;
  for (size_t i = 1; i < call.args.size(); ++i)
    arguments.positional.push_back(Evaluate(*call.args[i]));
  if (call.star) {
    for (Value& value : Iterate(Evaluate(*call.star), call.line))
      arguments.positional.push_back(std::move(value));
  }
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
  if (callable->macro) return CallMacro(*callable, arguments, nullptr, expression.line);
  if (callable->object)
    return CallMethod(*callable->object, callable->name, arguments, expression.line);
  return CallFunction(callable->name, arguments, expression.line);
}

}  // namespace quern::jinja
