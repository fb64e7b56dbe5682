#include "runtime/tokenizer/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <iterator>
#include <span>

#include "runtime/formats/file_signature.h"

namespace quern {
namespace {

// The expressions are the models' own, as their tokenizer.json has them; (?i:...) over the English
// endings is written out, so that it does not take in U+017F and other letters that only fold to
// ASCII.
#define ENDINGS "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

constexpr char kDigit[] = "\\p{N}";
constexpr char kGpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr char kLlama3[] = ENDINGS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kQwen2[] = ENDINGS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kTekken[] =
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER
    "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr char kGpt4o[] =
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+(?:" ENDINGS ")?|[^\\r\\n\\p{L}\\p{N}]?" UPPER
    "+" LOWER "*(?:" ENDINGS
    ")?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

#undef ENDINGS
#undef UPPER
#undef LOWER

struct Family {
  std::vector<const char*> expressions;
  PreTokenizer::Traits traits;
  std::vector<std::string_view> names;
};

// Those that were compared with Hugging Face's library over a corpus (tests/recordings/tokenizer):
// a wrong cut gives other tokens than the model was trained on, and nobody would see why it answers
// badly.
const std::vector<Family>& Families() {
  static const std::vector<Family> families = {
      {{kDigit, kGpt2}, {}, {"smollm", "starcoder", "refact"}},
      {{kGpt2}, {}, {"gpt-2"}},
      {{kLlama3},
       {.ignore_merges = true, .add_bos = true},
       {"llama-bpe", "llama3", "llama-v3"}},  // the last two are old names
      {{kLlama3}, {}, {"dbrx"}},
      {{kQwen2}, {}, {"qwen2"}},
      {{kTekken}, {.ignore_merges = true, .add_bos = true}, {"tekken"}},
      {{kGpt4o}, {}, {"gpt-4o"}},
  };
  return families;
}

// PCRE2's \s takes in U+180E, which Unicode no longer counts as white space, so it is spelled out.
std::string SpellOutSpaces(std::string_view expression) {
  constexpr std::string_view kSpaces =
      "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{"
      "205f}\\x{3000}";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char next = expression[++i];
      if (next == 's') {
        out += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      } else if (next == 'S') {
        out += fmt::format("[^{}]", kSpaces);  // no expression has it inside a class
      } else {
        out += c;
        out += next;
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;

// A compiled expression that may be wrong only by our own mistake. The JIT may be forbidden (a
// hardened kernel); the interpreter then does the same, slower.
Result<Code> Compile(const char* expression) {
  const std::string spelled = SpellOutSpaces(expression);
  int error = 0;
  PCRE2_SIZE at = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(),
                          PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr));
  if (!code) {
    std::array<char, 256> text{};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
    return MakeError(ErrorCode::kInternal, "pre-tokenizer expression {} at {}: {}", spelled, at,
                     text.data());
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

// What one caller needs to match: PCRE2 lets threads share the code, not this.
class Matcher {
 public:
  Matcher()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr)) {
    pcre2_jit_stack_assign(context_, nullptr, stack_);
  }
  ~Matcher() {
    pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // Appends where the pieces of text[begin, end) end. The expression sees nothing outside of it.
  Status Split(const pcre2_code* code, std::string_view text, uint32_t begin, uint32_t end,
               std::vector<uint32_t>* ends) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data() + begin);
    const PCRE2_SIZE length = end - begin;
    const PCRE2_SIZE* match = pcre2_get_ovector_pointer(data_);
    for (PCRE2_SIZE at = 0; at < length;) {
      const int rc = pcre2_match(code, subject, length, at, PCRE2_NO_UTF_CHECK, data_, context_);
      if (rc == PCRE2_ERROR_NOMATCH) {
        ends->push_back(end);
        return {};
      }
      if (rc < 0 || match[1] <= match[0]) {
        return MakeError(ErrorCode::kResourceExhausted,
                         "splitting the text into words failed at byte {} (PCRE2 error {})",
                         begin + at, rc);
      }
      if (match[0] > at) ends->push_back(begin + static_cast<uint32_t>(match[0]));
      ends->push_back(begin + static_cast<uint32_t>(match[1]));
      at = match[1];
    }
    return {};
  }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  pcre2_jit_stack* stack_;
};

}  // namespace

struct PreTokenizer::Expressions {
  std::vector<Code> codes;
};

PreTokenizer::PreTokenizer(std::unique_ptr<Expressions> expressions, Traits traits)
    : expressions_(std::move(expressions)), traits_(traits) {}

PreTokenizer::~PreTokenizer() = default;

Result<std::unique_ptr<PreTokenizer>> PreTokenizer::Find(std::string_view name) {
  for (const Family& family : Families()) {
    for (const std::string_view known : family.names) {
      if (known != name) continue;
      auto expressions = std::make_unique<Expressions>();
      for (const char* expression : family.expressions) {
        QUERN_ASSIGN(Code code, Compile(expression));
        expressions->codes.push_back(std::move(code));
      }
      return std::unique_ptr<PreTokenizer>(new PreTokenizer(std::move(expressions), family.traits));
    }
  }
  return MakeError(ErrorCode::kUnsupported,
                   "tokenizer.ggml.pre is '{}': how it cuts text into words has not been checked "
                   "here, and a wrong cut gives wrong answers; supported are {}",
                   Printable(name), fmt::join(KnownNames(), ", "));
}

Status PreTokenizer::Split(std::string_view text, std::vector<uint32_t>* ends) const {
  Matcher matcher;
  std::vector<uint32_t> before = {static_cast<uint32_t>(text.size())};
  if (text.empty()) before.clear();
  for (const Code& code : expressions_->codes) {
    ends->clear();
    ends->reserve(before.size());
    uint32_t begin = 0;
    for (const uint32_t end : before) {
      QUERN_TRY(matcher.Split(code.get(), text, begin, end, ends));
      begin = end;
    }
    std::swap(*ends, before);
  }
  std::swap(*ends, before);
  return {};
}

std::vector<std::string> PreTokenizer::KnownNames() {
  std::vector<std::string> names;
  for (const Family& family : Families())
    names.insert(names.end(), family.names.begin(), family.names.end());
  return names;
}

}  // namespace quern
