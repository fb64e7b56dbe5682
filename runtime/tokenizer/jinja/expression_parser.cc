// Grammar: https://jinja.palletsprojects.com/en/stable/templates/#expressions

#include "runtime/tokenizer/jinja/expression_parser.h"

#include <algorithm>
#include <cstdlib>

namespace quern::jinja {
namespace {

using Kind = Expression::Kind;

ExpressionPtr Make(Kind kind, int line, std::string name = {}) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->name = std::move(name);
  return expression;
}

// A long chain (a + a + a ...) makes a deep tree, though parsing it
// does not nest.
void CountDepth(Expression& parent, const ExpressionPtr& child) {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > TokenCursor::kMaxDepth) {
    Fail(ErrorCode::kUnsupported, parent.line, "nested more than {} deep", TokenCursor::kMaxDepth);
  }
}

void Adopt(Expression& parent, ExpressionPtr child) {
  CountDepth(parent, child);
  parent.args.push_back(std::move(child));
}

template <typename... Args>
ExpressionPtr MakeWith(Kind kind, int line, std::string name, Args... args) {
  auto expression = Make(kind, line, std::move(name));
  (Adopt(*expression, std::move(args)), ...);
  return expression;
}

ExpressionPtr SetValue(ExpressionPtr literal, Value value) {
  literal->value = std::move(value);
  return literal;
}

}  // namespace

ExpressionPtr ExpressionParser::ParseTuple() {
  ExpressionPtr first = ParseExpression();
  if (!IsOperator(",")) return first;
  const int line = first->line;
  auto list = MakeWith(Kind::kTuple, line, "", std::move(first));
  while (TakeOperator(",")) {
    if (Now().kind == Token::Kind::kBlockEnd || Now().kind == Token::Kind::kOutputEnd ||
        IsOperator(")"))
      break;
    Adopt(*list, ParseExpression());
  }
  return list;
}

ExpressionPtr ExpressionParser::ParseExpression() {
  const Level level(*this);
  ExpressionPtr value = ParseOr();
  while (IsName("if")) {
    const int line = Take().line;
    ExpressionPtr condition = ParseOr();
    ExpressionPtr otherwise = TakeName("else") ? ParseExpression() : nullptr;
    value = MakeWith(Kind::kConditional, line, "", std::move(condition), std::move(value),
                     std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::ParseOr() {
  ExpressionPtr left = ParseAnd();
  while (IsName("or")) {
    const int line = Take().line;
    left = MakeWith(Kind::kBinary, line, "or", std::move(left), ParseAnd());
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseAnd() {
  ExpressionPtr left = ParseNot();
  while (IsName("and")) {
    const int line = Take().line;
    left = MakeWith(Kind::kBinary, line, "and", std::move(left), ParseNot());
  }
  return left;
}

ExpressionPtr ExpressionParser::ParseNot() {
  const Level level(*this);
  if (!IsName("not")) return ParseCompare();
  const int line = Take().line;
  return MakeWith(Kind::kUnary, line, "not", ParseNot());
}

ExpressionPtr ExpressionParser::ParseCompare() {
  ExpressionPtr left = ParseSum();
  const int line = left->line;
  ExpressionPtr compare;
  while (true) {
    std::string found;
    for (const std::string_view op : {"==", "!=", "<", ">", "<=", ">="}) {
      if (IsOperator(op)) found = op;
    }
    if (IsName("in")) found = "in";
    if (IsName("not") && Next().kind == Token::Kind::kName && Next().text == "in") {
      Take();
      found = "not in";
    }
    if (found.empty()) return compare ? std::move(compare) : std::move(left);
    Take();
    if (!compare) compare = MakeWith(Kind::kCompare, line, "", std::move(left));
    compare->operators.push_back(found);
    Adopt(*compare, ParseSum());
  }
}

ExpressionPtr ExpressionParser::ParseSum() {
  return ParseBinary({"+", "-"}, &ExpressionParser::ParseConcat);
}
ExpressionPtr ExpressionParser::ParseConcat() {
  return ParseBinary({"~"}, &ExpressionParser::ParseProduct);
}
ExpressionPtr ExpressionParser::ParseProduct() {
  return ParseBinary({"*", "/", "//", "%"}, &ExpressionParser::ParsePower);
}

ExpressionPtr ExpressionParser::ParsePower() {
  ExpressionPtr value = ParseUnary(true);
  if (IsOperator("**"))
    Fail(ErrorCode::kUnsupported, Now().line, "the operator ** is not supported");
  return value;
}

ExpressionPtr ExpressionParser::ParseBinary(std::initializer_list<std::string_view> operators,
                                            ExpressionPtr (ExpressionParser::*next)()) {
  ExpressionPtr left = (this->*next)();
  while (true) {
    std::string_view found;
    for (const std::string_view op : operators) {
      if (IsOperator(op)) found = op;
    }
    if (found.empty()) return left;
    const int line = Take().line;
    left = MakeWith(Kind::kBinary, line, std::string(found), std::move(left), (this->*next)());
  }
}

ExpressionPtr ExpressionParser::ParseUnary(bool with_filter) {
  const Level level(*this);
  ExpressionPtr value;
  if (IsOperator("-") || IsOperator("+")) {
    const Token& sign = Take();
    value = MakeWith(Kind::kUnary, sign.line, sign.text, ParseUnary(false));
  } else {
    value = ParsePrimary();
  }
  value = ParsePostfix(std::move(value));
  return with_filter ? ParseFilters(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::ParsePrimary() {
  const Token token = Now();
  switch (token.kind) {
    case Token::Kind::kName: {
      Take();
      auto literal = Make(Kind::kLiteral, token.line);
      if (token.text == "true" || token.text == "True")
        return SetValue(std::move(literal), Value::Bool(true));
      if (token.text == "false" || token.text == "False")
        return SetValue(std::move(literal), Value::Bool(false));
      if (token.text == "none" || token.text == "None")
        return SetValue(std::move(literal), Value::OfNone());
      return Make(Kind::kName, token.line, token.text);
    }
    case Token::Kind::kString: {
      std::string text;
      while (Now().kind == Token::Kind::kString) text += Take().text;
      return SetValue(Make(Kind::kLiteral, token.line), Value::Text(std::move(text)));
    }
    case Token::Kind::kInt:
      Take();
      return SetValue(Make(Kind::kLiteral, token.line), Value::Int(std::stoll(token.text)));
    case Token::Kind::kFloat:
      Take();
      return SetValue(Make(Kind::kLiteral, token.line),
                      Value(Value::Data(std::strtod(token.text.c_str(), nullptr))));
    default:
      break;
  }
  if (TakeOperator("(")) {
    if (TakeOperator(")")) return Make(Kind::kTuple, token.line);
    ExpressionPtr inner = ParseTuple();
    Expect(")");
    return inner;
  }
  if (TakeOperator("[")) {
    auto list = Make(Kind::kList, token.line);
    while (!TakeOperator("]")) {
      if (!list->args.empty()) Expect(",");
      if (TakeOperator("]")) break;
      Adopt(*list, ParseExpression());
    }
    return list;
  }
  if (TakeOperator("{")) {
    auto dict = Make(Kind::kDict, token.line);
    while (!TakeOperator("}")) {
      if (!dict->args.empty()) Expect(",");
      if (TakeOperator("}")) break;
      Adopt(*dict, ParseExpression());
      Expect(":");
      Adopt(*dict, ParseExpression());
    }
    return dict;
  }
  Unexpected("an expression");
}

ExpressionPtr ExpressionParser::ParsePostfix(ExpressionPtr value) {
  while (true) {
    const int line = Now().line;
    if (TakeOperator(".")) {
      if (Now().kind == Token::Kind::kInt) {
        auto index = SetValue(Make(Kind::kLiteral, line), Value::Int(std::stoll(Take().text)));
        value = MakeWith(Kind::kItem, line, "", std::move(value), std::move(index));
      } else {
        value = MakeWith(Kind::kAttribute, line, TakeIdentifier(), std::move(value));
      }
    } else if (TakeOperator("[")) {
      value = ParseSubscript(std::move(value), line);
    } else if (IsOperator("(")) {
      value = MakeWith(Kind::kCall, line, "", std::move(value));
      ParseArguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::ParseSubscript(ExpressionPtr value, int line) {
  ExpressionPtr parts[3];
  int part = 0;
  bool is_slice = false;
  while (!TakeOperator("]")) {
    if (TakeOperator(":")) {
      is_slice = true;
      if (++part > 2) Unexpected("']'");
    } else {
      if (parts[part]) Unexpected("']'");
      parts[part] = ParseExpression();
    }
  }
  if (is_slice) {
    return MakeWith(Kind::kSlice, line, "", std::move(value), std::move(parts[0]),
                    std::move(parts[1]), std::move(parts[2]));
  }
  if (!parts[0]) Fail(ErrorCode::kInvalidArgument, line, "[] needs an index");
  return MakeWith(Kind::kItem, line, "", std::move(value), std::move(parts[0]));
}

void ExpressionParser::ParseArguments(Expression& call) {
  Expect("(");
  bool first = true;
  while (!TakeOperator(")")) {
    if (!first) Expect(",");
    if (TakeOperator(")")) break;
    first = false;
    if (IsOperator("**"))
      Fail(ErrorCode::kUnsupported, Now().line, "arguments by ** are not supported");
    if (TakeOperator("*")) {
      if (call.star) Unexpected("one * argument");
      call.star = ParseExpression();
      CountDepth(call, call.star);
      continue;
    }
    const bool named = Now().kind == Token::Kind::kName && Next().kind == Token::Kind::kOperator &&
                       Next().text == "=";
    if (named) {
      std::string name = TakeIdentifier();
      Take();
      ExpressionPtr value = ParseExpression();
      CountDepth(call, value);
      call.named.emplace_back(std::move(name), std::move(value));
    } else {
      Adopt(call, ParseExpression());
    }
  }
}

ExpressionPtr ExpressionParser::ParseFilters(ExpressionPtr value) {
  while (true) {
    const int line = Now().line;
    if (TakeOperator("|")) {
      value = MakeWith(Kind::kFilter, line, TakeIdentifier(), std::move(value));
      if (IsOperator("(")) ParseArguments(*value);
    } else if (TakeName("is")) {
      value = ParseTest(std::move(value), line);
    } else if (IsOperator("(")) {
      value = MakeWith(Kind::kCall, line, "", std::move(value));
      ParseArguments(*value);
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::ParseBlockFilters() {
  const int line = Now().line;
  auto value = MakeWith(Kind::kFilter, line, TakeIdentifier(), Make(Kind::kCaptured, line));
  if (IsOperator("(")) ParseArguments(*value);
  return ParseFilters(std::move(value));
}

ExpressionPtr ExpressionParser::ParseTest(ExpressionPtr value, int line) {
  const bool negated = TakeName("not");
  auto test = MakeWith(Kind::kTest, line, TakeIdentifier(), std::move(value));
  const Token& next = Now();
  const bool is_word = next.kind == Token::Kind::kName && next.text != "else" &&
                       next.text != "or" && next.text != "and" && next.text != "is" &&
                       next.text != "if" && next.text != "not" && next.text != "in";
  if (IsOperator("(")) {
    ParseArguments(*test);
  } else if (is_word || next.kind == Token::Kind::kString || next.kind == Token::Kind::kInt ||
             next.kind == Token::Kind::kFloat || IsOperator("[") || IsOperator("{")) {
    Adopt(*test, ParsePostfix(ParsePrimary()));
  }
  return negated ? MakeWith(Kind::kUnary, line, "not", std::move(test)) : std::move(test);
}

}  // namespace quern::jinja
