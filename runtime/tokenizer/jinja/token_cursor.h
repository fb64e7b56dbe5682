#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/tokenizer/jinja/lexer.h"
#include "runtime/tokenizer/jinja/value.h"

namespace quern::jinja {

// A place in a list of tokens: what the parsers look at and take from. Throws TemplateError.
class TokenCursor {
 public:
  static constexpr int kMaxDepth = 200;

  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // Counts how deep the grammar's rules are nested, so that no template can exhaust the stack.
  class Level {
   public:
    explicit Level(TokenCursor& cursor) : cursor_(cursor) {
      if (++cursor_.depth_ > kMaxDepth) {
        Fail(ErrorCode::kUnsupported, cursor_.Now().line, "nested more than {} deep", kMaxDepth);
      }
    }
    ~Level() { --cursor_.depth_; }

   private:
    TokenCursor& cursor_;
  };

  const Token& Now() const { return tokens_[at_]; }
  const Token& Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool IsOperator(std::string_view text) const {
    return Now().kind == Token::Kind::kOperator && Now().text == text;
  }
  bool IsName(std::string_view text) const {
    return Now().kind == Token::Kind::kName && Now().text == text;
  }
  bool TakeOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Take();
    return true;
  }
  bool TakeName(std::string_view text) {
    if (!IsName(text)) return false;
    Take();
    return true;
  }
  [[noreturn]] void Unexpected(std::string_view wanted) const {
    const Token& token = Now();
    const char* end =
        token.kind == Token::Kind::kEnd ? "the end of the template" : "the end of the tag";
    Fail(ErrorCode::kInvalidArgument, token.line, "{} is expected, not '{}'", wanted,
         token.text.empty() && token.kind != Token::Kind::kString ? end : token.text.substr(0, 40));
  }
  void Expect(std::string_view text) {
    if (!TakeOperator(text)) Unexpected(fmt::format("'{}'", text));
  }
  void ExpectName(std::string_view text) {
    if (!TakeName(text)) Unexpected(fmt::format("'{}'", text));
  }
  std::string TakeIdentifier() {
    if (Now().kind != Token::Kind::kName) Unexpected("a name");
    return Take().text;
  }
  void EndBlock() {
    if (Now().kind != Token::Kind::kBlockEnd) Unexpected("'%}'");
    Take();
  }

 protected:
  // The token after the current one.
  const Token& Next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace quern::jinja
