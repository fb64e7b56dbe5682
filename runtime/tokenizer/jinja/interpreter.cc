#include "runtime/tokenizer/jinja/interpreter.h"

#include <algorithm>

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

Interpreter::Interpreter(const Dict& globals, const Limits& limits,
                         std::chrono::system_clock::time_point now)
    : scopes_(1), now_(now), limits_(limits) {
  for (const auto& [name, value] : globals) scopes_[0].names[name] = value;
}

// Namespaces may hold each other, and themselves, in chains of any length: while all of them are
// still held here, each is emptied, so that no destructor goes on to the next.
Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

std::string Interpreter::Text(const Value& value, int line) {
  return value.ToString(Bill(*this, line));
}

std::string Interpreter::Json(const Value& value, const JsonStyle& style, int line) {
  return value.ToJson(style, Bill(*this, line));
}

bool Interpreter::Same(const Value& a, const Value& b, int line) {
  return Equal(a, b, Bill(*this, line));
}

const Value* Interpreter::Find(const Dict& dict, std::string_view key, int line) {
  Charge(LookupBytes(dict, key), line);
  return FindKey(dict, key);
}

std::optional<std::string> Interpreter::Key(const Value& value, int line) {
  if (value.text()) Charge(value.text()->size(), line);
  return DictKey(value);
}

void Interpreter::ChargeTexts(const Arguments& arguments, int line) {
  for (const Value& value : arguments.positional) {
    if (value.text()) Charge(value.text()->size(), line);
  }
  for (const auto& [name, value] : arguments.named) {
    if (value.text()) Charge(value.text()->size(), line);
  }
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
      case Statement::Kind::kSetBlock:
        flow = ExecuteSetBlock(*statement);
        break;
      case Statement::Kind::kMacro:
        Name(statement->text) = MakeMacro(*statement);
        break;
      case Statement::Kind::kCall:
        ExecuteCallBlock(*statement, out);
        break;
      case Statement::Kind::kFilter:
        flow = ExecuteFilterBlock(*statement, out);
        break;
      case Statement::Kind::kGroup: {
        const Inside inside(*this, scope_);
        flow = Execute(statement->body, out);
        break;
      }
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
      const Inside inside(*this, scope_);
      Assign(loop.targets, item, loop.line);
      if (Evaluate(*loop.condition).Truth()) kept.push_back(item);
    }
    items = std::move(kept);
  }
  const auto count = static_cast<int64_t>(items.size());
  for (int64_t i = 0; i < count; ++i) {
    Step(loop.line);
    const Inside inside(*this, scope_);
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
        {"cycle", Value(Value::Data(Callable{.name = "cycle",
                                             .object = std::make_shared<Value>(Value::Int(i))}))}};
    Charge(DictBytes(state), loop.line);
    Name("loop") = Value::Of(std::move(state));
    if (Execute(loop.body, out) == Flow::kBreak) break;
  }
  if (!items.empty()) return Flow::kNext;
  const Inside inside(*this, scope_);
  return Execute(loop.else_body, out);
}

void Interpreter::ExecuteSet(const Statement& set) {
  Value value = Evaluate(*set.expression);
  if (set.text.empty()) return Assign(set.targets, value, set.line);
  SetAttribute(set.targets[0], set.text, std::move(value), set.line);
}

Interpreter::Flow Interpreter::ExecuteSetBlock(const Statement& set) {
  std::string text;
  Flow flow;
  {
    const Inside inside(*this, scope_);
    flow = Execute(set.body, text);
    if (set.expression) {
      captured_ = Value::Text(std::move(text));
      text = Text(Evaluate(*set.expression), set.line);
    }
  }
  Value value = Value::Text(std::move(text));
  if (set.text.empty()) {
    Name(set.targets[0]) = std::move(value);
  } else {
    SetAttribute(set.targets[0], set.text, std::move(value), set.line);
  }
  return flow;
}

Interpreter::Flow Interpreter::ExecuteFilterBlock(const Statement& block, std::string& out) {
  const Inside inside(*this, scope_);
  std::string text;
  const Flow flow = Execute(block.body, text);
  captured_ = Value::Text(std::move(text));
  Emit(Text(Evaluate(*block.expression), block.line), block.line, out);
  return flow;
}

void Interpreter::ExecuteCallBlock(const Statement& block, std::string& out) {
  const Value callee = Evaluate(*block.expression->args[0]);
  const auto* callable = callee.As<Callable>();
  if (!callable || !callable->macro)
    Fail(ErrorCode::kUnsupported, block.line, "the tag 'call' needs a macro");
  const Arguments arguments = EvaluateArguments(*block.expression);
  const Value caller = MakeMacro(block);
  Emit(Text(CallMacro(*callable, arguments, &caller, block.line), block.line), block.line, out);
}

void Interpreter::SetAttribute(const std::string& name, const std::string& attribute, Value value,
                               int line) {
  const Value object = Lookup(name);
  const auto* space = object.As<std::shared_ptr<Namespace>>();
  if (!space) {
    Fail(ErrorCode::kInvalidArgument, line,
         "attributes can only be set on a namespace(), '{}' is {}", name, object.TypeName());
  }
  Charge(LookupBytes((*space)->attributes, attribute) + attribute.size() + sizeof(Dict::value_type),
         line);
  SetKey((*space)->attributes, attribute, std::move(value));
}

void Interpreter::Assign(const std::vector<std::string>& targets, const Value& value, int line) {
  if (targets.size() == 1) {
    Name(targets[0]) = value;
    return;
  }
  const List parts = Iterate(value, line);
  if (parts.size() != targets.size()) {
    Fail(ErrorCode::kInvalidArgument, line, "{} values cannot be given to {} names", parts.size(),
         targets.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) Name(targets[i]) = parts[i];
}

Value Interpreter::Lookup(const std::string& name) const {
  for (size_t i = scope_;; i = scopes_[i].parent) {
    const auto& names = scopes_[i].names;
    if (const auto found = names.find(name); found != names.end()) return found->second;
    if (i == 0) break;
  }
  for (const char* function : {"raise_exception", "namespace", "range", "dict", "strftime_now"}) {
    if (name == function) return Value(Value::Data(Callable{.name = name}));
  }
  return Missing(name);
}

Value Interpreter::MakeMacro(const Statement& macro) {
  return Value(Value::Data(Callable{
      .name = macro.text, .macro = &macro, .scope = scope_, .scope_id = scopes_[scope_].id}));
}

Value Interpreter::CallMacro(const Callable& callable, const Arguments& arguments,
                             const Value* caller, int line) {
  const Statement& macro = *callable.macro;
  if (arguments.positional.size() > macro.targets.size()) {
    Fail(ErrorCode::kInvalidArgument, line, "macro '{}' takes {} arguments, {} are given",
         macro.text, macro.targets.size(), arguments.positional.size());
  }
  for (const auto& [name, value] : arguments.named) {
    Charge(macro.targets.size(), line);
    if (std::find(macro.targets.begin(), macro.targets.end(), name) == macro.targets.end()) {
      Fail(ErrorCode::kInvalidArgument, line, "macro '{}' has no argument '{}'", macro.text, name);
    }
  }
  // A macro that outlives the scope it was defined in sees only the template's own.
  const bool lives =
      callable.scope < scopes_.size() && scopes_[callable.scope].id == callable.scope_id;
  const Inside inside(*this, lives ? callable.scope : 0);
  if (caller) Name("caller") = *caller;
  for (size_t i = 0; i < macro.targets.size(); ++i) {
    const Value* given = arguments.Get(i, macro.targets[i]);
    Value value = Missing(macro.targets[i]);
    if (given) {
      value = *given;
    } else if (macro.defaults[i]) {
      value = Evaluate(*macro.defaults[i]);
    }
    Name(macro.targets[i]) = std::move(value);
  }
  std::string out;
  Execute(macro.body, out);
  return Value::Text(std::move(out));
}

}  // namespace quern::jinja
