// Filters of texts, numbers and anything:
// https://jinja.palletsprojects.com/en/stable/templates/#builtin-filters

#include "runtime/tokenizer/jinja/filters.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {
namespace {

Value Trim(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const Value* set = arguments.Get(0, "chars");
  return Value::Text(Strip(interpreter.Text(input, line), true, true, set ? set->text() : nullptr));
}

template <std::string (*change)(std::string)>
Value ChangeText(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  return Value::Text(change(interpreter.Text(input, line)));
}

Value Default(Interpreter&, const Value& input, const Arguments& arguments, int) {
  const Value* otherwise = arguments.Get(0, "default_value");
  const bool missing =
      input.is_undefined() || (IsTrue(arguments.Get(1, "boolean")) && !input.Truth());
  return missing ? (otherwise ? *otherwise : Value::Text("")) : input;
}

// transformers' own tojson, which is json.dumps() and escapes nothing for HTML.
Value ToJson(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  JsonStyle style;
  style.ascii = IsTrue(arguments.Get(0, "ensure_ascii"));
  style.sort_keys = IsTrue(arguments.Get(3, "sort_keys"));
  std::string indent;
  if (const Value* given = arguments.Get(1, "indent"); given && !given->is_none()) {
    int64_t width = 0;
    if (given->text()) {
      indent = *given->text();
    } else if (given->AsInt(&width)) {
      indent.assign(static_cast<size_t>(std::clamp<int64_t>(width, 0, 1000)), ' ');
    } else {
      Fail(ErrorCode::kInvalidArgument, line, "tojson's indent must be a number or a string");
    }
    style.indent = &indent;
    style.item_separator = ",";
  }
  if (const Value* given = arguments.Get(2, "separators"); given && !given->is_none()) {
    const List* two = given->list();
    if (!two || two->size() != 2 || !(*two)[0].text() || !(*two)[1].text()) {
      Fail(ErrorCode::kInvalidArgument, line, "tojson's separators must be two strings");
    }
    style.item_separator = *(*two)[0].text();
    style.key_separator = *(*two)[1].text();
  }
  return Value::Text(interpreter.Json(input, style, line));
}

Value Replace(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  const Value* from = arguments.Get(0, "old");
  const Value* to = arguments.Get(1, "new");
  if (!from || !to) Fail(ErrorCode::kInvalidArgument, line, "replace needs two strings");
  const Value* count = arguments.Get(2, "count");
  int64_t limit = -1;
  if (count && !count->is_none() && !count->AsInt(&limit)) {
    Fail(ErrorCode::kInvalidArgument, line, "replace's count must be an integer");
  }
  return Value::Text(interpreter.ReplaceText(interpreter.Text(input, line),
                                             interpreter.Text(*from, line),
                                             interpreter.Text(*to, line), limit, line));
}

Value Indent(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  if (!input.text()) {
    Fail(ErrorCode::kInvalidArgument, line, "indent needs a string, not {}", input.TypeName());
  }
  const Value* width = arguments.Get(0, "width");
  std::string before(4, ' ');
  if (int64_t spaces; width && width->AsInt(&spaces)) {
    before.assign(static_cast<size_t>(std::clamp<int64_t>(spaces, 0, 1000)), ' ');
  } else if (width && width->text()) {
    before = *width->text();
  } else if (width) {
    Fail(ErrorCode::kInvalidArgument, line, "indent's width must be a number or a string");
  }
  const bool first = IsTrue(arguments.Get(1, "first"));
  const bool blank = IsTrue(arguments.Get(2, "blank"));
  std::string out;
  bool is_first = true;
  SplitLines(interpreter.Text(input, line) + '\n', [&](std::string_view part) {
    interpreter.Charge(before.size() + 1 + part.size(), line);
    if (!is_first) out += '\n';
    if (is_first ? first : blank || !part.empty()) out += before;
    out += part;
    is_first = false;
  });
  return Value::Text(std::move(out));
}

template <bool integer>
Value ToNumber(Interpreter&, const Value& input, const Arguments& arguments, int line) {
  if (input.is_undefined()) Fail(ErrorCode::kInvalidArgument, line, "int and float need a value");
  const Value* given = arguments.Get(0, "default");
  Value otherwise = given ? *given : integer ? Value::Int(0) : Value(Value::Data(0.0));
  double number = 0;
  int64_t whole;
  if (integer && input.AsInt(&whole)) return Value::Int(whole);
  if (!input.AsNumber(&number)) {
    const std::string text = input.text() ? Strip(*input.text(), true, true) : std::string();
    char* end = nullptr;
    number = std::strtod(text.c_str(), &end);
    // What strtod takes and float() does not: hexadecimal.
    if (text.empty() || *end != '\0' || text.find_first_of("xX") != std::string::npos) {
      return otherwise;
    }
  }
  if (!integer) return Value(Value::Data(number));
  if (!(std::fabs(number) < 9e18)) return otherwise;
  return Value::Int(static_cast<int64_t>(number));
}

Value Abs(Interpreter&, const Value& input, const Arguments&, int line) {
  int64_t whole;
  double number = 0;
  if (input.AsInt(&whole) && whole != INT64_MIN) return Value::Int(whole < 0 ? -whole : whole);
  if (input.AsNumber(&number)) return Value(Value::Data(std::fabs(number)));
  Fail(ErrorCode::kInvalidArgument, line, "abs needs a number, not {}", input.TypeName());
}

Value Round(Interpreter&, const Value& input, const Arguments& arguments, int line) {
  double number = 0;
  int64_t whole, precision = 0;
  const Value* places = arguments.Get(0, "precision");
  const Value* how = arguments.Get(1, "method");
  const std::string method = how && how->text() ? *how->text() : "common";
  if (!input.AsNumber(&number) || (places && !places->AsInt(&precision)) || precision < 0 ||
      precision > 30 || (method != "common" && method != "ceil" && method != "floor")) {
    Fail(ErrorCode::kInvalidArgument, line,
         "round needs a number, up to 30 places, and one of common, ceil and floor");
  }
  if (method == "common") {
    if (input.AsInt(&whole)) return Value::Int(whole);
    return Value(
        Value::Data(std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = method == "ceil" ? std::ceil(number * scale) : std::floor(number * scale);
  return Value(Value::Data(scaled / scale));
}

Value Safe(Interpreter& interpreter, const Value& input, const Arguments&, int line) {
  return Value::Markup(interpreter.Text(input, line));
}

std::string Same(std::string text) { return text; }

Value Format(Interpreter& interpreter, const Value& input, const Arguments& arguments, int line) {
  if (!arguments.named.empty()) {
    Fail(ErrorCode::kUnsupported, line, "format with named values is not supported");
  }
  return interpreter.FormatPercent(interpreter.Text(input, line), arguments.positional, line);
}

}  // namespace

const Filters& TextFilters() {
  static const Filters filters = {
      {"abs", Abs},
      {"capitalize", ChangeText<Capitalize>},
      {"d", Default},
      {"default", Default},
      {"float", ToNumber<false>},
      {"format", Format},
      {"indent", Indent},
      {"int", ToNumber<true>},
      {"lower", ChangeText<Lower>},
      {"replace", Replace},
      {"round", Round},
      {"safe", Safe},
      {"string", ChangeText<Same>},
      {"title", ChangeText<TitleFilter>},
      {"tojson", ToJson},
      {"trim", Trim},
      {"upper", ChangeText<Upper>},
  };
  return filters;
}

Value Interpreter::ApplyFilter(const std::string& name, const Value& input,
                               const Arguments& arguments, int line) {
  const Depth depth(*this, line);  // map('map', 'map', ...)
  Step(line);
  if (input.text()) Charge(input.text()->size(), line);
  ChargeTexts(arguments, line);
  for (const Filters* filters : {&TextFilters(), &ListFilters()}) {
    const auto found = filters->find(name);
    if (found != filters->end()) return found->second(*this, input, arguments, line);
  }
  Fail(ErrorCode::kUnsupported, line, "the filter '{}' is not supported", name);
}

}  // namespace quern::jinja
