#include "runtime/tokenizer/jinja/interpreter.h"

#include <algorithm>
#include <cstring>

#include "runtime/tokenizer/utf8.h"

namespace quern::jinja {

const Value* Arguments::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value Missing(std::string_view name) {
  size_t length = std::min<size_t>(name.size(), 80);  // a name can be any text: d[text]
  while (length < name.size() && (static_cast<uint8_t>(name[length]) & 0xc0) == 0x80) --length;
  return Value(Value::Data(Undefined{std::string(name.substr(0, length))}));
}

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data())
               : std::string_view::npos;
}

std::string_view TakeCharacter(std::string_view* text) {
  const std::string_view character = text->substr(0, std::max<size_t>(Utf8CharBytes(*text), 1));
  text->remove_prefix(character.size());
  return character;
}

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) TakeCharacter(&text);
  return count;
}

// What Value's functions pay is counted here.
class Interpreter::Bill final : public Meter {
 public:
  Bill(Interpreter& interpreter, int line) : interpreter_(interpreter), line_(line) {}
  void Pay(size_t bytes) const override {
    interpreter_.Step(line_);
    interpreter_.Charge(bytes, line_);
  }

 private:
  Interpreter& interpreter_;
  const int line_;
};

Interpreter::Interpreter(const Dict& globals, const Limits& limits) : scopes_(1), limits_(limits) {
  for (const auto& [name, value] : globals) scopes_[0][name] = value;
}

// Namespaces may hold each other, and themselves, in chains of any length: while all of them are
// still held here, each is emptied, so that no destructor goes on to the next.
Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

std::string Interpreter::Text(const Value& value, int line) {
  return value.ToString(Bill(*this, line));
}

std::string Interpreter::Json(const Value& value, int indent, int line) {
  return value.ToJson(indent, Bill(*this, line));
}

bool Interpreter::Same(const Value& a, const Value& b, int line) {
  return Equal(a, b, Bill(*this, line));
}

const Value* Interpreter::Find(const Dict& dict, std::string_view key, int line) {
  Charge(dict.size(), line);
  return FindKey(dict, key);
}

Value Interpreter::MakeNamespace(Dict attributes) {
  namespaces_.push_back(std::make_shared<Namespace>(Namespace{std::move(attributes)}));
  return Value(Value::Data(namespaces_.back()));
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
  Charge(text.size(), line);
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
        Emit(Text(Evaluate(*statement->expression), statement->line), statement->line, out);
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
    Charge(DictBytes(state), loop.line);
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
  return Missing(name);
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
    Value value = Missing(macro.targets[i]);
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
  return Value::Text(std::move(out));
}

}  // namespace quern::jinja
