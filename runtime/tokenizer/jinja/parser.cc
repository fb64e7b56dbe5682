// Grammar: https://jinja.palletsprojects.com/en/stable/templates/#list-of-control-structures

#include "runtime/tokenizer/jinja/parser.h"

#include <initializer_list>

#include "runtime/tokenizer/jinja/expression_parser.h"

namespace quern::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  Body Run() { return ParseBody({}); }

 private:
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
    if (name == "call") return ParseCall();
    if (name == "filter") {
      auto statement = MakeStatement(Statement::Kind::kFilter);
      statement->expression = ParseBlockFilters();
      ParseRest(*statement, "endfilter");
      return statement;
    }
    if (name == "generation") {  // marks what the model said; has no effect on the text
      auto statement = MakeStatement(Statement::Kind::kGroup);
      ParseRest(*statement, "endgeneration");
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
         "the tag '{}' is not supported: if, for, set, macro, call, filter, break, continue and "
         "generation are",
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
    if (TakeOperator("|")) statement->expression = ParseBlockFilters();
    if (statement->targets.size() != 1) Unexpected("'='");
    statement->kind = Statement::Kind::kSetBlock;
    ParseRest(*statement, "endset");
    return statement;
  }

  std::unique_ptr<Statement> ParseMacro() {
    auto statement = MakeStatement(Statement::Kind::kMacro);
    statement->text = TakeIdentifier();
    ParseParameters(*statement);
    ParseMacroBody(*statement, "endmacro");
    return statement;
  }

  std::unique_ptr<Statement> ParseCall() {
    auto statement = MakeStatement(Statement::Kind::kCall);
    statement->text = "caller";
    if (IsOperator("(")) ParseParameters(*statement);
    statement->expression = ParseExpression();
    if (statement->expression->kind != Expression::Kind::kCall) Unexpected("a call");
    ParseMacroBody(*statement, "endcall");
    return statement;
  }

  void ParseParameters(Statement& macro) {
    Expect("(");
    while (!TakeOperator(")")) {
      if (!macro.targets.empty()) Expect(",");
      macro.targets.push_back(TakeIdentifier());
      macro.defaults.push_back(TakeOperator("=") ? ParseExpression() : nullptr);
    }
  }

  void ParseMacroBody(Statement& macro, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    ParseRest(macro, end);
    loops_ = loops;
  }

  // Of a tag: its end, its body and the tag that ends it.
  void ParseRest(Statement& statement, std::string_view end) {
    EndBlock();
    statement.body = ParseBody({end});
    Take();
    EndBlock();
  }

  int loops_ = 0;
};

}  // namespace

Body Parse(std::string_view source) { return Parser(Tokenize(source)).Run(); }

}  // namespace quern::jinja
