#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quern::jinja {

struct Token {
  enum class Kind {
    kText,
    kOutputBegin,
    kOutputEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInt,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  std::string text;  // of a string: what it stands for
  int line;
};

// Cuts a template into tokens, with white space handled as Hugging Face's environment does:
// trim_blocks, lstrip_blocks, "-" and "+" at the delimiters, one newline at the end dropped. Throws
// TemplateError.
std::vector<Token> Tokenize(std::string_view source);

}  // namespace quern::jinja
