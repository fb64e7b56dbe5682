#include "runtime/constraints/constraint.h"

#include <llguidance.h>

#include <algorithm>
#include <cassert>
#include <string_view>
#include <utility>

namespace quern {
namespace {

// In words that say something to whoever wrote the format.
std::string_view Why(LlgMatcher* matcher) {
  const char* error = llg_matcher_get_error(matcher);
  const std::string_view why = error == nullptr ? "unknown" : error;
  if (why.starts_with("NoExtensionBias")) return "nothing fits it from here on";
  return why.substr(0, why.find('\n'));  // what follows is the library's own
}

}  // namespace

void Constraint::Free::operator()(LlgMatcher* matcher) const { llg_free_matcher(matcher); }

Constraint::Constraint(LlgMatcher* matcher, size_t vocab_size, std::shared_ptr<const Tokens> ends)
    : matcher_(matcher), vocab_size_(vocab_size), ends_(std::move(ends)) {}

Constraint::~Constraint() = default;

Status Constraint::ComputeMask(std::span<uint32_t> mask) {
  assert(mask.size() == MaskWords(vocab_size_));
  if (ended_) {
    std::fill(mask.begin(), mask.end(), 0);
    for (const int32_t end : *ends_) {
      mask[static_cast<size_t>(end) / 32] |= uint32_t{1} << (end % 32);
    }
    return {};
  }
  if (llg_matcher_compute_mask_into(matcher_.get(), mask.data(), mask.size_bytes()) != 0) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "the answer's format cannot be followed any further: {}", Why(matcher_.get()));
  }
  if (std::all_of(mask.begin(), mask.end(), [](uint32_t word) { return word == 0; })) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "the answer's format allows no token of the model's vocabulary here");
  }
  return {};
}

Status Constraint::Commit(int32_t token) {
  // The library's matcher stops by itself where nothing may follow, and then takes no end token.
  if (std::find(ends_->begin(), ends_->end(), token) != ends_->end() &&
      (ended_ || llg_matcher_is_accepting(matcher_.get()))) {
    ended_ = true;
    return {};
  }
  if (ended_) {
    return MakeError(ErrorCode::kInvalidArgument, "token {} comes after the answer's end", token);
  }
  const bool known = token >= 0 && static_cast<size_t>(token) < vocab_size_;
  if (known && llg_matcher_consume_token(matcher_.get(), static_cast<uint32_t>(token)) == 0) {
    return {};
  }
  return MakeError(ErrorCode::kInvalidArgument, "token {} does not fit the answer's format: {}",
                   token, known ? Why(matcher_.get()) : "it is outside the vocabulary");
}

bool Constraint::IsAccepting() { return llg_matcher_is_accepting(matcher_.get()); }

bool Constraint::IsFinished() const { return ended_ || llg_matcher_is_stopped(matcher_.get()); }

std::unique_ptr<Constraint> Constraint::Clone() const {
  auto copy = std::make_unique<Constraint>(llg_clone_matcher(matcher_.get()), vocab_size_, ends_);
  copy->ended_ = ended_;
  return copy;
}

}  // namespace quern
