#include "runtime/tokenizer/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "runtime/tokenizer/jinja/text.h"

namespace quern::jinja {
namespace {

constexpr char kIntegerKey = '\xff';

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void AppendIndent(const JsonStyle& style, size_t depth, std::string& out) {
  if (!style.indent) return;
  out += '\n';
  for (size_t i = 0; i < depth; ++i) out += *style.indent;
}

// The text itself is paid for; escapes, up to six bytes for one, are paid here, a piece at a time.
void AppendJsonText(std::string_view text, const JsonStyle& style, const Meter& meter,
                    std::string& out) {
  constexpr size_t kPieceBytes = 64 * 1024;
  out += '"';
  while (!text.empty()) {
    size_t length = std::min(text.size(), kPieceBytes);
    while (length < text.size() && (static_cast<uint8_t>(text[length]) & 0xc0) == 0x80 &&
           length + 3 > kPieceBytes)
      --length;
    const std::string quoted =
        nlohmann::json(text.substr(0, length))
            .dump(-1, ' ', style.ascii, nlohmann::json::error_handler_t::replace);
    const std::string_view piece = std::string_view(quoted).substr(1, quoted.size() - 2);
    if (piece.size() > length) meter.Pay(piece.size() - length);
    out += piece;
    text.remove_prefix(length);
  }
  out += '"';
}

void AppendJsonNumber(double number, std::string& out) {
  if (std::isnan(number)) {
    out += "NaN";
  } else if (std::isinf(number)) {
    out += number > 0 ? "Infinity" : "-Infinity";
  } else {
    out += FloatRepr(number);
  }
}

}  // namespace

Value Value::FromJson(const nlohmann::ordered_json& json) {
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return Bool(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Int(json.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned: {
      const auto number = json.get<uint64_t>();
      if (number > INT64_MAX) return Value(Data(static_cast<double>(number)));
      return Int(static_cast<int64_t>(number));
    }
    case nlohmann::json::value_t::number_float:
      return Value(Data(json.get<double>()));
    case nlohmann::json::value_t::string:
      return Text(json.get<std::string>());
    case nlohmann::json::value_t::array: {
      List list;
      for (const auto& item : json) list.push_back(FromJson(item));
      return Of(std::move(list));
    }
    case nlohmann::json::value_t::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.emplace_back(key, FromJson(item));
      return Of(std::move(dict));
    }
    default:
      return OfNone();
  }
}

bool Value::AsInt(int64_t* number) const {
  if (const auto* b = As<bool>()) {
    *number = *b;
    return true;
  }
  if (const auto* i = As<int64_t>()) {
    *number = *i;
    return true;
  }
  return false;
}

bool Value::AsNumber(double* number) const {
  int64_t integer;
  if (AsInt(&integer)) {
    *number = static_cast<double>(integer);
    return true;
  }
  if (const auto* d = As<double>()) {
    *number = *d;
    return true;
  }
  return false;
}

bool Value::Truth() const {
  if (const auto* b = As<bool>()) return *b;
  if (const auto* i = As<int64_t>()) return *i != 0;
  if (const auto* d = As<double>()) return *d != 0;
  if (text()) return !text()->empty();
  if (list()) return list_kind_ == ListKind::kIterator || !list()->empty();
  if (dict()) return !dict()->empty();
  return !is_undefined() && !is_none();
}

void Value::SetDepth() {
  int below = -1;
  if (list()) {
    below = 0;
    for (const Value& item : *list()) below = std::max(below, item.depth_);
  } else if (dict()) {
    below = 0;
    for (const auto& [key, item] : *dict()) below = std::max(below, item.depth_);
  } else if (const auto* callable = As<Callable>(); callable && callable->object) {
    below = callable->object->depth_;
  }
  depth_ = below + 1;
  if (depth_ > kMaxDepth) {
    throw TemplateError{
        {ErrorCode::kResourceExhausted,
         fmt::format("chat template: values are nested more than {} deep", kMaxDepth)}};
  }
}

std::string Value::ToString(const Meter& meter) const {
  if (is_undefined()) return {};
  if (text()) {
    meter.Pay(text()->size());
    return *text();
  }
  std::string out;
  AppendRepr(meter, out);
  return out;
}

void Value::AppendRepr(const Meter& meter, std::string& out) const {
  meter.Pay(text() ? text()->size() : sizeof(Value));
  if (text()) {
    const size_t before = out.size() + text()->size();
    AppendQuoted(*text(), out);
    if (out.size() > before) meter.Pay(out.size() - before);  // quotes and escapes
    return;
  }
  const bool is_tuple = list_kind_ == ListKind::kTuple;
  if (is_undefined()) {
    out += "Undefined";
  } else if (is_none()) {
    out += "None";
  } else if (const auto* b = As<bool>()) {
    out += *b ? "True" : "False";
  } else if (const auto* i = As<int64_t>()) {
    out += std::to_string(*i);
  } else if (const auto* d = As<double>()) {
    out += FloatRepr(*d);
  } else if (list() && list_kind_ == ListKind::kIterator) {
    out += "<generator>";
  } else if (list()) {
    out += is_tuple ? '(' : '[';
    for (size_t i = 0; i < list()->size(); ++i) {
      if (i > 0) out += ", ";
      (*list())[i].AppendRepr(meter, out);
    }
    if (is_tuple && list()->size() == 1) out += ',';
    out += is_tuple ? ')' : ']';
  } else if (dict()) {
    out += '{';
    for (size_t i = 0; i < dict()->size(); ++i) {
      const auto& [key, item] = (*dict())[i];
      meter.Pay(key.size());
      if (i > 0) out += ", ";
      if (key.starts_with(kIntegerKey)) {
        out.append(key, 1);
      } else {
        AppendQuoted(key, out);
      }
      out += ": ";
      item.AppendRepr(meter, out);
    }
    out += '}';
  } else {
    out += fmt::format("<{}>", TypeName());
  }
}

std::string Value::ToJson(const JsonStyle& style, const Meter& meter) const {
  std::string out;
  AppendJson(style, 1, meter, out);
  return out;
}

void Value::AppendJson(const JsonStyle& style, size_t depth, const Meter& meter,
                       std::string& out) const {
  const size_t before = style.item_separator.size() + style.key_separator.size() +
                        (style.indent ? style.indent->size() * depth : 0);
  meter.Pay(sizeof(Value) + before + (text() ? text()->size() : 0));
  if (text()) {
    AppendJsonText(*text(), style, meter, out);
  } else if (const auto* b = As<bool>()) {
    out += *b ? "true" : "false";
  } else if (is_none()) {
    out += "null";
  } else if (const auto* i = As<int64_t>()) {
    out += std::to_string(*i);
  } else if (const auto* d = As<double>()) {
    AppendJsonNumber(*d, out);
  } else if (list() && list_kind_ != ListKind::kIterator) {
    out += '[';
    for (size_t i = 0; i < list()->size(); ++i) {
      if (i > 0) out += style.item_separator;
      AppendIndent(style, depth, out);
      (*list())[i].AppendJson(style, depth + 1, meter, out);
    }
    if (!list()->empty()) AppendIndent(style, depth - 1, out);
    out += ']';
  } else if (dict()) {
    std::vector<const Dict::value_type*> entries;
    for (const auto& entry : *dict()) entries.push_back(&entry);
    if (style.sort_keys) {
      std::sort(entries.begin(), entries.end(),
                [](const auto* a, const auto* b) { return a->first < b->first; });
    }
    out += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += style.item_separator;
      AppendIndent(style, depth, out);
      meter.Pay(entries[i]->first.size());
      const std::string_view key = entries[i]->first;
      AppendJsonText(key.starts_with(kIntegerKey) ? key.substr(1) : key, style, meter, out);
      out += style.key_separator;
      entries[i]->second.AppendJson(style, depth + 1, meter, out);
    }
    if (!entries.empty()) AppendIndent(style, depth - 1, out);
    out += '}';
  } else {
    throw TemplateError{{ErrorCode::kInvalidArgument,
                         fmt::format("chat template: tojson of a value of type {}", TypeName())}};
  }
}

const char* Value::TypeName() const {
  constexpr const char* kNames[] = {"undefined", "NoneType", "bool", "int",       "float",
                                    "str",       "list",     "dict", "namespace", "function"};
  if (list() && list_kind_ != ListKind::kList) {
    return list_kind_ == ListKind::kTuple ? "tuple" : "generator";
  }
  return kNames[data_.index()];
}

bool Equal(const Value& a, const Value& b, const Meter& meter) {
  meter.Pay(0);
  int64_t ia, ib;
  if (a.AsInt(&ia) && b.AsInt(&ib)) return ia == ib;
  double da, db;
  if (a.AsNumber(&da) && b.AsNumber(&db)) return da == db;
  if (a.text() && b.text()) {
    if (a.text()->size() != b.text()->size()) return false;
    meter.Pay(a.text()->size());
    return *a.text() == *b.text();
  }
  if (a.list() && b.list()) {
    if (a.list_kind() != b.list_kind()) return false;
    if (a.list()->size() != b.list()->size()) return false;
    for (size_t i = 0; i < a.list()->size(); ++i) {
      if (!Equal((*a.list())[i], (*b.list())[i], meter)) return false;
    }
    return true;
  }
  if (a.dict() && b.dict()) {
    if (a.dict()->size() != b.dict()->size()) return false;
    for (const auto& [key, value] : *a.dict()) {
      meter.Pay(LookupBytes(*b.dict(), key));
      const Value* other = FindKey(*b.dict(), key);
      if (!other || !Equal(value, *other, meter)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::optional<std::string> DictKey(const Value& key) {
  if (key.text()) return *key.text();
  int64_t number;
  if (!key.AsInt(&number)) return std::nullopt;
  return kIntegerKey + std::to_string(number);
}

Value KeyValue(const std::string& key) {
  if (!key.starts_with(kIntegerKey)) return Value::Text(key);
  return Value::Int(std::stoll(key.substr(1)));
}

const Value* FindKey(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

size_t LookupBytes(const Dict& dict, std::string_view key) {
  size_t bytes = dict.size();
  for (const auto& [name, value] : dict) bytes += name.size() == key.size() ? key.size() : 0;
  return bytes;
}

void SetKey(Dict& dict, std::string_view key, Value value) {
  for (auto& [name, old] : dict) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  dict.emplace_back(key, std::move(value));
}

size_t DictBytes(const Dict& dict) {
  size_t bytes = dict.size() * sizeof(Dict::value_type);
  for (const auto& [key, value] : dict) bytes += key.size();
  return bytes;
}

}  // namespace quern::jinja
