#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quern::gateway {

// Tokens that an answer says it took.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t generation_tokens = 0;

  friend bool operator==(const Usage&, const Usage&) = default;
};

// Finds `usage` in an answer of OpenAI's API that passes by, streamed or not, in its last
// kTailBytes: in a stream it is in one of the last events, in a JSON body among the last members.
class UsageTail {
 public:
  static constexpr size_t kTailBytes = 8 * 1024;

  void Feed(std::string_view bytes);
  // Of the last object called "usage" that has counts: prompt_tokens and completion_tokens, or
  // input_tokens and output_tokens (Responses). nullopt: there is none.
  std::optional<Usage> Find() const;

 private:
  std::string tail_;  // at most twice as long
};

// How many tokens a prompt has, before anybody has counted them: the bytes of the request's body
// times what earlier answers' usage had come to, with older ones forgotten (the last 100 or so
// count). Until there is any: a token for each 4 bytes, as of English text.
class TokenEstimator {
 public:
  double tokens_per_byte() const { return tokens_ / bytes_; }
  double Estimate(size_t body_bytes) const {
    return static_cast<double>(body_bytes) * tokens_per_byte();
  }
  // What a body of so many bytes turned out to be. A ratio that no tokenizer makes counts as the
  // nearest that one may: from 0.001 to 2 tokens a byte.
  void Learn(size_t body_bytes, int64_t prompt_tokens);

 private:
  // Sums that fade. The first ones are as of one short request, and soon of no weight.
  double bytes_ = 400;
  double tokens_ = 100;
};

}  // namespace quern::gateway
