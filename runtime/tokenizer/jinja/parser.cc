// Grammar: https://jinja.palletsprojects.com/en/stable/templates/#expressions, precedence as in
// jinja2/parser.py.

#include "runtime/tokenizer/jinja/parser.h"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>

#include "runtime/tokenizer/jinja/lexer.h"

namespace quern::jinja {
namespace {

constexpr int kMaxDepth = 200;
using Kind = Expression::Kind;

ExpressionPtr Make(Kind kind, int line, std::string name = {}) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  expression->name = std::move(name);
  return expression;
}

template <typename... Args>
ExpressionPtr MakeWith(Kind kind, int line, std::string name, Args... args) {
  auto expression = Make(kind, line, std::move(name));
  (expression->args.push_back(std::move(args)), ...);
  // A long chain (a + a + a ...) makes a deep tree, though parsing it does not nest.
  for (const ExpressionPtr& arg : expression->args) {
    if (arg) expression->depth = std::max(expression->depth, arg->depth + 1);
  }
  if (expression->depth > kMaxDepth)
    Fail(ErrorCode::kUnsupported, line, "nested more than {} deep", kMaxDepth);
  return expression;
}

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Body Run() {
    Body body = ParseBody({});
    return body;
  }

 private:
  // Counts how deep the grammar's rules are nested, so that no template can exhaust the stack.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) {
        Fail(ErrorCode::kUnsupported, parser_.Now().line, "nested more than {} deep", kMaxDepth);
      }
    }
    ~Level() { --parser_.depth_; }

   private:
    Parser& parser_;
  };

  const Token& Now() const { return tokens_[at_]; }
  const Token& Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool IsOperator(std::string_view text) const {
    return Now().kind == Token::Kind::kOperator && Now().text == text;
  }
  bool IsName(std::string_view text) const {
    return Now().kind == Token::Kind::kName && Now().text == text;
  }
  bool TakeOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Take();
    return true;
  }
  bool TakeName(std::string_view text) {
    if (!IsName(text)) return false;
    Take();
    return true;
  }
  [[noreturn]] void Unexpected(std::string_view wanted) const {
    const Token& token = Now();
    const char* end =
        token.kind == Token::Kind::kEnd ? "the end of the template" : "the end of the tag";
    Fail(ErrorCode::kInvalidArgument, token.line, "{} is expected, not '{}'", wanted,
         token.text.empty() && token.kind != Token::Kind::kString ? end : token.text.substr(0, 40));
  }
  void Expect(std::string_view text) {
    if (!TakeOperator(text)) Unexpected(fmt::format("'{}'", text));
  }
  void ExpectName(std::string_view text) {
    if (!TakeName(text)) Unexpected(fmt::format("'{}'", text));
  }
  std::string TakeIdentifier() {
    if (Now().kind != Token::Kind::kName) Unexpected("a name");
    return Take().text;
  }
  void EndBlock() {
    if (Now().kind != Token::Kind::kBlockEnd) Unexpected("'%}'");
    Take();
  }

  // Statements up to a tag that begins with one of `ends`, whose name is then the current token.
  Body ParseBody(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    Body body;
    while (true) {
      const Token& token = Now();
      switch (token.kind) {
        case Token::Kind::kText: {
          body.push_back(MakeStatement(Statement::Kind::kText));
          body.back()->text = Take().text;
          break;
        }
        case Token::Kind::kOutputBegin: {
          body.push_back(MakeStatement(Statement::Kind::kOutput));
          Take();
          body.back()->expression = ParseTuple();
          if (Now().kind != Token::Kind::kOutputEnd) Unexpected("'}}'");
          Take();
          break;
        }
        case Token::Kind::kBlockBegin: {
          Take();
          for (const std::string_view end : ends) {
            if (IsName(end)) return body;
          }
          body.push_back(ParseStatement());
          break;
        }
        default:
          if (ends.size() > 0) Unexpected(fmt::format("'{{% {} %}}'", *(ends.end() - 1)));
          return body;
      }
    }
  }

  std::unique_ptr<Statement> MakeStatement(Statement::Kind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = Now().line;
    return statement;
  }

  std::unique_ptr<Statement> ParseStatement() {
    const int line = Now().line;
    const std::string name = TakeIdentifier();
    if (name == "if") return ParseIf();
    if (name == "for") return ParseFor();
    if (name == "set") return ParseSet();
    if (name == "macro") return ParseMacro();
    if (name == "generation") {  // marks what the model said; has no effect on the text
      auto statement = MakeStatement(Statement::Kind::kGroup);
      EndBlock();
      statement->body = ParseBody({"endgeneration"});
      Take();
      EndBlock();
      return statement;
    }
    if (name == "break" || name == "continue") {
      auto statement =
          MakeStatement(name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue);
      if (loops_ == 0) Fail(ErrorCode::kInvalidArgument, line, "'{}' is outside of a loop", name);
      EndBlock();
      return statement;
    }
    Fail(ErrorCode::kUnsupported, line,
         "the tag '{}' is not supported: if, for, set, macro, break, continue and generation are",
         name);
  }

  std::unique_ptr<Statement> ParseIf() {
    auto statement = MakeStatement(Statement::Kind::kIf);
    while (true) {
      ExpressionPtr condition = ParseTuple();
      EndBlock();
      Body body = ParseBody({"elif", "else", "endif"});
      statement->branches.emplace_back(std::move(condition), std::move(body));
      if (TakeName("elif")) continue;
      if (TakeName("else")) {
        EndBlock();
        statement->branches.emplace_back(nullptr, ParseBody({"endif"}));
      }
      ExpectName("endif");
      EndBlock();
      return statement;
    }
  }

  std::vector<std::string> ParseTargets() {
    std::vector<std::string> targets;
    const bool bracket = TakeOperator("(");
    do {
      targets.push_back(TakeIdentifier());
    } while (TakeOperator(","));
    if (bracket) Expect(")");
    return targets;
  }

  std::unique_ptr<Statement> ParseFor() {
    auto statement = MakeStatement(Statement::Kind::kFor);
    statement->targets = ParseTargets();
    ExpectName("in");
    statement->expression = ParseOr();
    if (TakeName("if")) statement->condition = ParseExpression();
    if (IsName("recursive"))
      Fail(ErrorCode::kUnsupported, Now().line, "recursive loops are not supported");
    EndBlock();
    ++loops_;
    statement->body = ParseBody({"else", "endfor"});
    --loops_;
    if (TakeName("else")) {
      EndBlock();
      statement->else_body = ParseBody({"endfor"});
    }
    ExpectName("endfor");
    EndBlock();
    return statement;
  }

  std::unique_ptr<Statement> ParseSet() {
    auto statement = MakeStatement(Statement::Kind::kSet);
    statement->targets = ParseTargets();
    if (TakeOperator(".")) statement->text = TakeIdentifier();
    if (TakeOperator("=")) {
      statement->expression = ParseTuple();
      EndBlock();
      return statement;
    }
    if (IsOperator("|"))
      Fail(ErrorCode::kUnsupported, Now().line, "filters on a set block are not supported");
    if (statement->targets.size() != 1 || !statement->text.empty()) Unexpected("'='");
    statement->kind = Statement::Kind::kSetBlock;
    EndBlock();
    statement->body = ParseBody({"endset"});
    Take();
    EndBlock();
    return statement;
  }

  std::unique_ptr<Statement> ParseMacro() {
    auto statement = MakeStatement(Statement::Kind::kMacro);
    statement->text = TakeIdentifier();
    Expect("(");
    while (!TakeOperator(")")) {
      if (!statement->targets.empty()) Expect(",");
      statement->targets.push_back(TakeIdentifier());
      statement->defaults.push_back(TakeOperator("=") ? ParseExpression() : nullptr);
    }
    EndBlock();
    const int loops = std::exchange(loops_, 0);
    statement->body = ParseBody({"endmacro"});
    loops_ = loops;
    Take();
    EndBlock();
    return statement;
  }

  // An expression, or several with commas between, which make a list.
  ExpressionPtr ParseTuple() {
    ExpressionPtr first = ParseExpression();
    if (!IsOperator(",")) return first;
    const int line = first->line;
    auto list = MakeWith(Kind::kList, line, "", std::move(first));
    while (TakeOperator(",")) {
      if (Now().kind == Token::Kind::kBlockEnd || Now().kind == Token::Kind::kOutputEnd ||
          IsOperator(")"))
        break;
      list->args.push_back(ParseExpression());
    }
    return list;
  }

  ExpressionPtr ParseExpression() {
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

  ExpressionPtr ParseOr() {
    ExpressionPtr left = ParseAnd();
    while (IsName("or")) {
      const int line = Take().line;
      left = MakeWith(Kind::kBinary, line, "or", std::move(left), ParseAnd());
    }
    return left;
  }

  ExpressionPtr ParseAnd() {
    ExpressionPtr left = ParseNot();
    while (IsName("and")) {
      const int line = Take().line;
      left = MakeWith(Kind::kBinary, line, "and", std::move(left), ParseNot());
    }
    return left;
  }

  ExpressionPtr ParseNot() {
    const Level level(*this);
    if (!IsName("not")) return ParseCompare();
    const int line = Take().line;
    return MakeWith(Kind::kUnary, line, "not", ParseNot());
  }

  ExpressionPtr ParseCompare() {
    ExpressionPtr left = ParseSum();
    auto compare = Make(Kind::kCompare, left->line);
    compare->args.push_back(std::move(left));
    while (true) {
      std::string found;
      for (const std::string_view op : {"==", "!=", "<", ">", "<=", ">="}) {
        if (IsOperator(op)) found = op;
      }
      if (IsName("in")) found = "in";
      if (IsName("not") && at_ + 1 < tokens_.size() &&
          tokens_[at_ + 1].kind == Token::Kind::kName && tokens_[at_ + 1].text == "in") {
        Take();
        found = "not in";
      }
      if (found.empty()) break;
      Take();
      compare->operators.push_back(found);
      compare->args.push_back(ParseSum());
    }
    return compare->operators.empty() ? std::move(compare->args[0]) : std::move(compare);
  }

  ExpressionPtr ParseSum() { return ParseBinary({"+", "-"}, &Parser::ParseConcat); }
  ExpressionPtr ParseConcat() { return ParseBinary({"~"}, &Parser::ParseProduct); }
  ExpressionPtr ParseProduct() { return ParseBinary({"*", "/", "//", "%"}, &Parser::ParsePower); }

  ExpressionPtr ParsePower() {
    ExpressionPtr value = ParseUnary(true);
    if (IsOperator("**"))
      Fail(ErrorCode::kUnsupported, Now().line, "the operator ** is not supported");
    return value;
  }

  ExpressionPtr ParseBinary(std::initializer_list<std::string_view> operators,
                            ExpressionPtr (Parser::*next)()) {
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

  ExpressionPtr ParseUnary(bool with_filter) {
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

  ExpressionPtr ParsePrimary() {
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
      if (TakeOperator(")")) return Make(Kind::kList, token.line);
      ExpressionPtr inner = ParseTuple();
      Expect(")");
      return inner;
    }
    if (TakeOperator("[")) {
      auto list = Make(Kind::kList, token.line);
      while (!TakeOperator("]")) {
        if (!list->args.empty()) Expect(",");
        if (TakeOperator("]")) break;
        list->args.push_back(ParseExpression());
      }
      return list;
    }
    if (TakeOperator("{")) {
      auto dict = Make(Kind::kDict, token.line);
      while (!TakeOperator("}")) {
        if (!dict->args.empty()) Expect(",");
        if (TakeOperator("}")) break;
        dict->args.push_back(ParseExpression());
        Expect(":");
        dict->args.push_back(ParseExpression());
      }
      return dict;
    }
    Unexpected("an expression");
  }

  static ExpressionPtr SetValue(ExpressionPtr literal, Value value) {
    literal->value = std::move(value);
    return literal;
  }

  ExpressionPtr ParsePostfix(ExpressionPtr value) {
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

  ExpressionPtr ParseSubscript(ExpressionPtr value, int line) {
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

  void ParseArguments(Expression& call) {
    Expect("(");
    bool first = true;
    while (!TakeOperator(")")) {
      if (!first) Expect(",");
      if (TakeOperator(")")) break;
      first = false;
      if (IsOperator("*") || IsOperator("**")) {
        Fail(ErrorCode::kUnsupported, Now().line, "arguments by * are not supported");
      }
      const bool named = Now().kind == Token::Kind::kName && at_ + 1 < tokens_.size() &&
                         tokens_[at_ + 1].kind == Token::Kind::kOperator &&
                         tokens_[at_ + 1].text == "=";
      if (named) {
        std::string name = TakeIdentifier();
        Take();
        call.named.emplace_back(std::move(name), ParseExpression());
      } else {
        call.args.push_back(ParseExpression());
      }
    }
  }

  ExpressionPtr ParseFilters(ExpressionPtr value) {
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

  ExpressionPtr ParseTest(ExpressionPtr value, int line) {
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
      test->args.push_back(ParsePostfix(ParsePrimary()));
    }
    return negated ? MakeWith(Kind::kUnary, line, "not", std::move(test)) : std::move(test);
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Body Parse(std::string_view source) { return Parser(Tokenize(source)).Run(); }

}  // namespace quern::jinja
