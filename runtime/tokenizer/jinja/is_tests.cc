// Tests: https://jinja.palletsprojects.com/en/stable/templates/#builtin-tests

#include <algorithm>
#include <cmath>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {

bool Interpreter::ApplyTest(const std::string& name, const Value& input, const Arguments& arguments,
                            int line) {
  Step(line);
  ChargeTexts(arguments, line);
  const bool is_bool = input.As<bool>() != nullptr;
  const bool is_int = input.As<int64_t>() != nullptr;
  const bool is_float = input.As<double>() != nullptr;
  if (name == "defined") return !input.is_undefined();
  if (name == "undefined") return input.is_undefined();
  if (name == "none") return input.is_none();
  if (name == "string") return input.text() != nullptr;
  if (name == "boolean") return is_bool;
  if (name == "integer") return is_int;
  if (name == "float") return is_float;
  if (name == "number") return is_bool || is_int || is_float;
  if (name == "true") return is_bool && input.Truth();
  if (name == "false") return is_bool && !input.Truth();
  if (name == "mapping") return input.dict() != nullptr;
  if (name == "sequence")
    return input.list() || input.text() || input.dict() || input.is_undefined();
  if (name == "iterable")
    return input.list() || input.text() || input.dict() || input.is_undefined();
  if (name == "callable") return input.As<Callable>() || input.is_undefined();
  if (name == "lower" || name == "upper") {
    const std::string text = Text(input, line);
    return std::any_of(text.begin(), text.end(), IsLetter) &&
           (name == "lower" ? Lower(text) : Upper(text)) == text;
  }
  int64_t number;
  double real;
  if ((name == "odd" || name == "even") && input.AsInt(&number))
    return (number % 2 != 0) == (name == "odd");
  if ((name == "odd" || name == "even") && input.AsNumber(&real))
    return real - 2 * std::floor(real / 2) == (name == "odd" ? 1 : 0);
  const Value* other = arguments.Get(0, "other");
  if (other) {
    int64_t divisor;
    if (name == "divisibleby" && input.AsInt(&number) && other->AsInt(&divisor) && divisor != 0) {
      return divisor == -1 || number % divisor == 0;
    }
    if (name == "in") return Contains(*other, input, line);
    if (name == "equalto" || name == "eq" || name == "==" || name == "sameas")
      return Same(input, *other, line);
    if (name == "ne" || name == "!=") return !Same(input, *other, line);
    if (name == "gt" || name == "greaterthan" || name == ">")
      return Compare(input, *other, line) > 0;
    if (name == "ge" || name == ">=") return Compare(input, *other, line) >= 0;
    if (name == "lt" || name == "lessthan" || name == "<") return Compare(input, *other, line) < 0;
    if (name == "le" || name == "<=") return Compare(input, *other, line) <= 0;
  }
  Fail(ErrorCode::kUnsupported, line, "the test '{}' of {} is not supported", name,
       input.TypeName());
}

}  // namespace quern::jinja
