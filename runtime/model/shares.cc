#include "runtime/model/shares.h"

#include <string>

namespace quern {
namespace {

constexpr int kMostNamed = 64;  // of numbers of ranks, in a message

// Why not, or "".
std::string WhyNotOver(const Hyperparameters& h, const ShareUnits& units, int size) {
  if (size == 1) return "";
  if (h.heads % size != 0) {
    return fmt::format("its {} attention heads cannot be split evenly", h.heads);
  }
  if (h.kv_heads % size != 0 && size % h.kv_heads != 0) {
    return fmt::format(
        "its {} KV heads can neither be split evenly nor be copied evenly: one of the two numbers "
        "must be a multiple of the other",
        h.kv_heads);
  }
  if (h.heads / size * h.head_dim % units.attention != 0) {
    return fmt::format(
        "{} of its heads are {} columns of attn_output, which are stored in blocks of {}",
        h.heads / size, h.heads / size * h.head_dim, units.attention);
  }
  const bool experts = h.experts > 0;
  const int64_t width = experts ? h.expert_ffn_width : h.ffn_width;
  const int64_t unit = experts ? units.expert_ffn : units.ffn;
  if (width / unit < size) {
    return fmt::format("{} feed-forward width of {} is {} of {}, which cannot be split further",
                       experts ? "each expert's" : "its", width, width / unit, unit);
  }
  if (h.vocab_size < size) return fmt::format("its vocabulary has {} tokens", h.vocab_size);
  return "";
}

std::string SizesThatSuit(const Hyperparameters& h, const ShareUnits& units) {
  std::string sizes;
  for (int size = 1; size <= kMostNamed; ++size) {
    if (!WhyNotOver(h, units, size).empty()) continue;
    if (!sizes.empty()) sizes += ", ";
    sizes += std::to_string(size);
  }
  return sizes;
}

}  // namespace

Part SplitEvenly(int64_t whole, int64_t unit, int rank, int size) {
  const int64_t units = whole / unit;
  const int64_t begin = units * rank / size * unit;
  const int64_t end = units * (rank + 1) / size * unit;
  return {begin, end - begin, whole};
}

Result<Shares> ShareOut(const Hyperparameters& h, const ShareUnits& units, int rank, int size) {
  if (const std::string why = WhyNotOver(h, units, size); !why.empty()) {
    return MakeError(ErrorCode::kUnsupported,
                     "this model cannot be split over {} processes: {}; numbers that suit it: {}",
                     size, why, SizesThatSuit(h, units));
  }
  Shares shares;
  shares.heads = SplitEvenly(h.heads, 1, rank, size);
  shares.kv_heads = h.kv_heads % size == 0 ? SplitEvenly(h.kv_heads, 1, rank, size)
                                           : Part(int64_t{rank} * h.kv_heads / size, 1, h.kv_heads);
  if (h.experts > 0) {
    shares.expert_ffn = SplitEvenly(h.expert_ffn_width, units.expert_ffn, rank, size);
  } else {
    shares.ffn = SplitEvenly(h.ffn_width, units.ffn, rank, size);
  }
  shares.vocab = SplitEvenly(h.vocab_size, 1, rank, size);
  return shares;
}

}  // namespace quern
