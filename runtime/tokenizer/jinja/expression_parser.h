#pragma once

#include <initializer_list>
#include <string_view>

#include "runtime/tokenizer/jinja/ast.h"
#include "runtime/tokenizer/jinja/token_cursor.h"

namespace quern::jinja {

// The expressions of a template, by recursive descent: one function for each level of precedence,
// as in jinja2/parser.py. Throws TemplateError.
class ExpressionParser : public TokenCursor {
 public:
  using TokenCursor::TokenCursor;

  // An expression, or several with commas between, which make a list.
  ExpressionPtr ParseTuple();
  // With a condition ("a if b else c") and without.
  ExpressionPtr ParseExpression();
  ExpressionPtr ParseOr();
  // A filter, and more with "|" between, of what a block has captured.
  ExpressionPtr ParseBlockFilters();

 private:
  ExpressionPtr ParseAnd();
  ExpressionPtr ParseNot();
  ExpressionPtr ParseCompare();
  ExpressionPtr ParseSum();
  ExpressionPtr ParseConcat();
  ExpressionPtr ParseProduct();
  ExpressionPtr ParsePower();
  ExpressionPtr ParseBinary(std::initializer_list<std::string_view> operators,
                            ExpressionPtr (ExpressionParser::*next)());
  ExpressionPtr ParseUnary(bool with_filter);
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParsePostfix(ExpressionPtr value);
  ExpressionPtr ParseSubscript(ExpressionPtr value, int line);
  void ParseArguments(Expression& call);
  ExpressionPtr ParseFilters(ExpressionPtr value);
  ExpressionPtr ParseTest(ExpressionPtr value, int line);
};

}  // namespace quern::jinja
