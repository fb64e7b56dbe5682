#pragma once

#include <string_view>
#include <unordered_map>

#include "runtime/tokenizer/jinja/interpreter.h"

namespace quern::jinja {

// What `input | name(arguments)` gives. Throws TemplateError.
using Filter = Value (*)(Interpreter& interpreter, const Value& input, const Arguments& arguments,
                         int line);
using Filters = std::unordered_map<std::string_view, Filter>;

const Filters& TextFilters();  // of texts, numbers and anything
const Filters& ListFilters();  // of lists and dicts

// Whether an argument was given and is true.
inline bool IsTrue(const Value* argument) { return argument && argument->Truth(); }

}  // namespace quern::jinja
