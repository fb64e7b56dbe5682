#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/tokenizer/jinja/value.h"

namespace quern::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kLiteral,      // value
    kName,         // name
    kList,         // args
    kTuple,        // args
    kCaptured,     // what the block has rendered to, whose filter this belongs to
    kDict,         // args: key, value, key, value ...
    kAttribute,    // args[0].name
    kItem,         // args[0][args[1]]
    kSlice,        // args[0][args[1]:args[2]:args[3]]; null where left out
    kCall,         // args[0](args[1]..., *star, named)
    kFilter,       // args[0] | name(args[1]..., named)
    kTest,         // args[0] is name(args[1]...)
    kUnary,        // name args[0]: "-", "+", "not"
    kBinary,       // args[0] name args[1]: arithmetic, "~", "and", "or"
    kCompare,      // args[0] operators[0] args[1] operators[1] args[2] ...
    kConditional,  // args[1] if args[0] else args[2] (null: undefined)
  };
  Kind kind;
  int line;
  std::string name;
  Value value;
  std::vector<ExpressionPtr> args;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star;
  std::vector<std::string> operators;
  int depth = 1;  // of the tree below
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Statement {
  enum class Kind {
    kText,      // text
    kOutput,    // {{ expression }}
    kIf,        // branches: condition (null: else) and body
    kFor,       // targets in expression if condition: body, else_body
    kSet,       // targets = expression; with `text` set: targets[0].text = expression
    kSetBlock,  // targets[0], or its attribute `text`, = what body renders to, through expression
    kMacro,     // text(targets): body; defaults, null where there is none
    kCall,      // expression, a call, with a macro `caller` like kMacro's
    kFilter,    // expression, a filter, of what body renders to
    kGroup,     // body, in a scope of its own
    kBreak,
    kContinue,
  };
  Kind kind;
  int line;
  std::string text;
  ExpressionPtr expression, condition;
  std::vector<std::string> targets;
  std::vector<ExpressionPtr> defaults;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body body, else_body;
};

}  // namespace quern::jinja
