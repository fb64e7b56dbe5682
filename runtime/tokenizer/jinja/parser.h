#pragma once

#include <string_view>

#include "runtime/tokenizer/jinja/ast.h"

namespace quern::jinja {

// Throws TemplateError: kUnsupported names the construct and the line, kInvalidArgument is a
// mistake in the template.
Body Parse(std::string_view source);

}  // namespace quern::jinja
