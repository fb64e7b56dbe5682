#include "runtime/engine/memory_plan.h"

#include <algorithm>
#include <limits>

#include "runtime/kv_cache/block_table.h"

namespace quern {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr int64_t kGibibyte = int64_t{1} << 30;
constexpr int32_t kMaxSequences = 4096;
constexpr int32_t kMaxBatchTokens = 1 << 20;
constexpr int32_t kMaxBlockTokens = 1024;
// A KV cache chosen by ourselves holds at least this many tokens, or the model's context if that is
// shorter: with less, nearly every request would be refused.
constexpr int64_t kLeastUsefulTokens = 512;
// Of layers with a window, so many blocks for each that the sequences which run can own, and one
// more for every so many of the other layers: for what they leave behind in the prefix cache. Of a
// conversation the other layers keep all and these a window's end; so with windows of 512 tokens,
// conversations of 4,096 on average are kept in either, and longer ones leave room here.
constexpr int64_t kBlocksPerWindowBlock = 8;

std::string Size(int64_t bytes) {
  if (bytes >= kGibibyte) return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / kGibibyte);
  if (bytes < kMebibyte) return fmt::format("{} KiB", bytes / 1024);
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / kMebibyte);
}

// So that a size can be written as an option's value: at least so many bytes.
std::string AsOption(int64_t bytes) {
  const auto up = [bytes](int64_t unit) { return (bytes + unit - 1) / unit; };
  return bytes < kMebibyte ? fmt::format("{}KiB", up(1024)) : fmt::format("{}MiB", up(kMebibyte));
}

std::string Grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

std::string LimitName(const ProcessMemory& memory) {
  if (memory.on_device) return "the GPU's memory";
  const char* limit = memory.limited_by_cgroup ? "cgroup limit" : "machine's memory";
  return memory.sharers == 1
             ? limit
             : fmt::format("each of {} processes' share of the {}", memory.sharers, limit);
}

// What gives more of it.
const char* WayToMore(const ProcessMemory& memory) {
  if (memory.on_device) return "take a GPU with more memory";
  return memory.limited_by_cgroup ? "raise the limit" : "take a machine with more memory";
}

Status CheckRange(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}; it must be between {} and {}", name,
                   value, low, high);
}

Status CheckOptions(const ModelInfo& model, const EngineOptions& options) {
  QUERN_TRY(CheckRange("max_sequences", options.max_sequences, 1, kMaxSequences));
  QUERN_TRY(CheckRange("max_waiting", options.max_waiting, 0,
                       std::numeric_limits<int32_t>::max() - kMaxSequences));
  QUERN_TRY(CheckRange("max_batch_tokens", options.max_batch_tokens, options.max_sequences,
                       kMaxBatchTokens));
  if (!(options.max_decode_slowdown == 0 ||
        (options.max_decode_slowdown >= 1.1 && options.max_decode_slowdown <= 1000))) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "max_decode_slowdown is {}; it must be 0 (no bound) or from 1.1 to 1000",
                     options.max_decode_slowdown);
  }
  QUERN_TRY(CheckRange("kv_block_tokens", options.kv_block_tokens, 1, kMaxBlockTokens));
  QUERN_TRY(CheckRange("kv_memory_bytes", options.kv_memory_bytes, 0,
                       std::numeric_limits<int64_t>::max()));
  if (options.max_context_tokens < 0 || options.max_context_tokens > model.context_tokens) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--max-context-tokens is {}, and the model's context has {} tokens; use a "
                     "number up to that, or leave it out",
                     options.max_context_tokens, model.context_tokens);
  }
  if (model.vocab_size < 1 || model.context_tokens < 1 || model.kv_bytes_per_token < 1) {
    return MakeError(ErrorCode::kInternal,
                     "the model describes itself with a vocabulary of {}, a context of {} tokens "
                     "and {} bytes of KV "
                     "per token; all must be at least 1",
                     model.vocab_size, model.context_tokens, model.kv_bytes_per_token);
  }
  return {};
}

// How blocks and bytes of the KV cache go together, where some of the layers may need their last
// tokens only.
class KvMemory {
 public:
  KvMemory(const ModelInfo& model, const EngineOptions& options)
      : window_layers_(model.window_layers),
        all_bytes_(model.kv_bytes_per_token * options.kv_block_tokens),
        window_bytes_(model.kv_window_bytes_per_token * options.kv_block_tokens),
        most_(std::numeric_limits<int32_t>::max() / options.kv_block_tokens) {
    if (window_layers_ == 0) return;
    const int32_t context =
        options.max_context_tokens > 0 ? options.max_context_tokens : model.context_tokens;
    const int32_t reach = std::min(BlocksFor(model.window_tokens - 1, options.kv_block_tokens),
                                   BlocksFor(context, options.kv_block_tokens));
    in_use_ = WindowBlocksInUse(reach, options.kv_block_tokens, options.max_sequences,
                                options.max_batch_tokens);
  }

  // Of layers with a window, beside so many of the others: KvLayout::window_blocks. 0 where these
  // would be no fewer.
  int64_t WindowBlocks(int64_t blocks) const {
    if (window_layers_ == 0) return 0;
    const int64_t wanted = in_use_ + blocks / kBlocksPerWindowBlock;
    return wanted < blocks ? wanted : 0;
  }
  int64_t WindowBytes(int64_t blocks) const { return WindowBlocks(blocks) * window_bytes_; }
  int64_t Bytes(int64_t blocks) const {
    if (WindowBlocks(blocks) == 0) return blocks * all_bytes_;
    return blocks * (all_bytes_ - window_bytes_) + WindowBytes(blocks);
  }
  // The most that so many bytes hold; at most INT32_MAX tokens.
  int64_t BlocksIn(int64_t bytes) const {
    int64_t fit = 0;
    for (int64_t above = most_ + 1; above - fit > 1;) {
      const int64_t middle = fit + (above - fit) / 2;
      (Bytes(middle) <= bytes ? fit : above) = middle;
    }
    return fit;
  }

 private:
  const int32_t window_layers_;
  const int64_t all_bytes_, window_bytes_;  // of a block of tokens, in all layers and in these
  const int64_t most_;
  int64_t in_use_ = 0;
};

// Bytes that the KV cache may take of what the limit leaves.
int64_t RoomForKv(const MemoryPlan& plan, const ProcessMemory& memory, bool keep_reserve) {
  if (memory.limit_bytes == 0) return std::numeric_limits<int64_t>::max();
  const int64_t used = std::max(memory.resident_bytes, plan.weight_bytes);
  int64_t room = memory.limit_bytes - used;
  // Without a limit of our own, others live on this machine too.
  if (keep_reserve && !memory.limited_by_cgroup && memory.available_bytes > 0) {
    room = std::min(room, memory.available_bytes / 2);
  }
  return room - plan.logit_bytes - (keep_reserve ? plan.reserve_bytes : 0);
}

// The blocks of the KV cache that was asked for in bytes.
Result<int64_t> KvBlocksAskedFor(const EngineOptions& options, const KvMemory& kv,
                                 const MemoryPlan& plan, const ProcessMemory& memory) {
  const int64_t room = RoomForKv(plan, memory, false);
  if (options.kv_memory_bytes > room) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "a KV cache of {} does not fit: beside {} of weights and {} of logits, {} of "
                     "{} ({}) leave {}; "
                     "give less --kv-memory, or {}",
                     Size(options.kv_memory_bytes), Size(plan.weight_bytes), Size(plan.logit_bytes),
                     Size(std::max(memory.resident_bytes, plan.weight_bytes)),
                     Size(memory.limit_bytes), LimitName(memory), Size(std::max<int64_t>(0, room)),
                     WayToMore(memory));
  }
  const int64_t blocks = kv.BlocksIn(options.kv_memory_bytes);
  const int64_t tokens = blocks * options.kv_block_tokens;
  const int64_t least = options.max_context_tokens > 0
                            ? 1
                            : std::min(options.least_context_tokens, plan.context_tokens);
  if (tokens >= least) return blocks;
  const int64_t enough = kv.Bytes((least + options.kv_block_tokens - 1) / options.kv_block_tokens);
  return MakeError(
      ErrorCode::kResourceExhausted,
      "a KV cache of {} holds {}, which is of use for {}: give --kv-memory {} or more, which holds "
      "{} tokens{}",
      AsOption(options.kv_memory_bytes),
      tokens == 0 ? fmt::format("not one block of {} tokens", options.kv_block_tokens)
                  : fmt::format("{} tokens, prompt and answer together", tokens),
      tokens == 0 ? "no request" : "hardly any request", AsOption(enough), least,
      tokens == 0
          ? ""
          : fmt::format("; if so short a context is meant, say --max-context-tokens {}", tokens));
}

// The blocks of the KV cache that memory allows, up to what all sequences together could use.
Result<int64_t> KvBlocksThatFit(const EngineOptions& options, const KvMemory& kv,
                                const MemoryPlan& plan, const ProcessMemory& memory,
                                int32_t context) {
  const int64_t room = RoomForKv(plan, memory, true);
  const int64_t least = std::min<int64_t>(context, kLeastUsefulTokens);
  const int64_t fits = kv.BlocksIn(room);
  const int64_t least_blocks = (least + options.kv_block_tokens) / options.kv_block_tokens;
  if (fits < least_blocks) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "no memory is left for a KV cache of {} tokens ({}): weights take {}, {} {}, "
                     "logits {} and the reserve {}, of {} ({}); {}, or lower --max-sequences",
                     least, Size(kv.Bytes(least_blocks)), Size(plan.weight_bytes),
                     memory.on_device ? "all that is on the GPU" : "the process",
                     Size(memory.resident_bytes), Size(plan.logit_bytes), Size(plan.reserve_bytes),
                     Size(memory.limit_bytes), LimitName(memory), WayToMore(memory));
  }
  // One spare block each, as sequences do not end on the borders of blocks.
  const int64_t useful =
      int64_t{options.max_sequences} * (int64_t{context} + options.kv_block_tokens);
  return std::min(fits, useful / options.kv_block_tokens);
}

}  // namespace

Result<MemoryPlan> PlanMemory(const ModelInfo& model, const EngineOptions& options,
                              const ProcessMemory& memory) {
  QUERN_TRY(CheckOptions(model, options));
  MemoryPlan plan;
  plan.weight_bytes = model.weight_bytes;
  plan.logit_bytes = int64_t{options.max_sequences} * model.vocab_size * int64_t{sizeof(float)};
  plan.reserve_bytes = 128 * kMebibyte + std::min(kGibibyte, memory.limit_bytes / 20);
  plan.context_tokens =
      options.max_context_tokens > 0 ? options.max_context_tokens : model.context_tokens;

  const KvMemory kv(model, options);
  int64_t blocks = 0;
  if (options.kv_memory_bytes > 0) {
    QUERN_ASSIGN(blocks, KvBlocksAskedFor(options, kv, plan, memory));
  } else {
    QUERN_ASSIGN(blocks, KvBlocksThatFit(options, kv, plan, memory, plan.context_tokens));
  }
  plan.layout = {.block_tokens = options.kv_block_tokens,
                 .num_blocks = static_cast<int32_t>(blocks),
                 .window_blocks = static_cast<int32_t>(kv.WindowBlocks(blocks))};
  plan.kv_tokens = blocks * options.kv_block_tokens;
  plan.kv_bytes = kv.Bytes(blocks);
  plan.window_bytes = kv.WindowBytes(blocks);
  plan.window_layers = model.window_layers;
  plan.layers = model.layers;
  plan.window_tokens = model.window_tokens;
  if (plan.kv_tokens < plan.context_tokens) {
    if (options.max_context_tokens > 0) {
      return MakeError(ErrorCode::kResourceExhausted,
                       "a context of {} tokens does not fit a KV cache of {} tokens ({}); give "
                       "--kv-memory {} or more, or --max-context-tokens {} or less",
                       plan.context_tokens, plan.kv_tokens, Size(plan.kv_bytes),
                       AsOption(kv.Bytes(BlocksFor(plan.context_tokens, options.kv_block_tokens))),
                       plan.kv_tokens);
    }
    plan.context_tokens = static_cast<int32_t>(plan.kv_tokens);
  }
  return plan;
}

int64_t KvMemoryFor(const ModelInfo& model, const EngineOptions& options, int64_t blocks) {
  return KvMemory(model, options).Bytes(blocks);
}

std::string WhyContextDoesNotFit(const ModelInfo& model, const EngineOptions& options,
                                 const ProcessMemory& memory) {
  const auto plan = PlanMemory(model, options, memory);
  if (!plan) {
    return plan.error().code == ErrorCode::kResourceExhausted ? plan.error().message : "";
  }
  const int32_t wanted =
      options.max_context_tokens > 0 ? options.max_context_tokens : model.context_tokens;
  if (plan->context_tokens >= wanted) return "";
  return fmt::format("a context of {} tokens takes {} in {}, and there are {}", Grouped(wanted),
                     Size(KvMemoryFor(model, options, BlocksFor(wanted, options.kv_block_tokens))),
                     KvDtypeName(model.kv_dtype), Size(plan->kv_bytes));
}

std::string MemoryPlan::Describe(const ProcessMemory& memory) const {
  std::string windows;
  if (layout.window_blocks > 0) {
    windows = fmt::format("; {} of {} layers keep the last {} tokens of each sequence: {}",
                          window_layers, layers, Grouped(window_tokens), Size(window_bytes));
  }
  std::string text = fmt::format(
      "weights {}, KV {} = {} tokens ({} blocks of {}{}), logits {}, reserve {}, context {} tokens",
      Size(weight_bytes), Size(kv_bytes), Grouped(kv_tokens), Grouped(layout.num_blocks),
      layout.block_tokens, windows, Size(logit_bytes), Size(reserve_bytes),
      Grouped(context_tokens));
  if (memory.limit_bytes > 0) {
    text +=
        fmt::format("; {} of {} ({})", Size(weight_bytes + kv_bytes + logit_bytes + reserve_bytes),
                    Size(memory.limit_bytes), LimitName(memory));
  }
  return text;
}

}  // namespace quern
