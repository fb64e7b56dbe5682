#include "runtime/model/parallel_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace quern {
namespace {

// What a message asks for. What comes with it, in words of 32 bits:
enum class Ask : int32_t {
  kLoad,
  kUnload,
  kEnd,
  kReserveSteps,  // tokens, sequences, context tokens
  kSetKvDtype,    // the dtype
  kAllocateKv,    // the layout's three numbers
  kForward,       // first_layer, end_layer; tokens, positions, logit_rows; of each sequence
                  // first_row, num_rows, context_tokens, blocks, window_blocks. Lists with their
                  // lengths before them
  kReadLogits,    // rows
  kDeviceMemory,
};

// A message is one broadcast of so many words, and a second one of what does not fit: a step in
// which 32 sequences of 400 tokens generate is one.
constexpr size_t kFirstWords = 1024;
constexpr size_t kMostWords = size_t{1} << 26;

class Message {
 public:
  explicit Message(Ask ask) : words_{0, static_cast<int32_t>(ask)} {}

  Message& Put(int32_t word) {
    words_.push_back(word);
    return *this;
  }
  Message& Put(std::span<const int32_t> list) {
    Put(static_cast<int32_t>(list.size()));
    words_.insert(words_.end(), list.begin(), list.end());
    return *this;
  }

  Status Send(Communicator& group) {
    words_[0] = static_cast<int32_t>(words_.size());
    words_.resize(std::max(words_.size(), kFirstWords));
    const auto bytes = std::as_writable_bytes(std::span(words_));
    QUERN_TRY(group.Await(bytes.first(kFirstWords * sizeof(int32_t))));
    return group.Broadcast(bytes.subspan(kFirstWords * sizeof(int32_t)), 0);
  }

 private:
  std::vector<int32_t> words_;  // the first is their number
};

// A message that came, read from its beginning.
class Received {
 public:
  Status Receive(Communicator& group) {
    words_.resize(kFirstWords);
    QUERN_TRY(group.Await(std::as_writable_bytes(std::span(words_))));
    left_ = words_;
    const auto count = static_cast<size_t>(std::max(0, Take()));
    if (count > kMostWords) {
      return MakeError(ErrorCode::kInternal,
                       "rank 0 sent a message of {} words; {} are the most: are all ranks of one "
                       "version?",
                       count, kMostWords);
    }
    if (count > kFirstWords) {
      words_.resize(count);
      const auto rest = std::span(words_).subspan(kFirstWords);
      QUERN_TRY(group.Broadcast(std::as_writable_bytes(rest), 0));
    }
    left_ = std::span(words_).first(count).subspan(std::min<size_t>(count, 1));
    return {};
  }

  // 0 and nothing, once there is no more.
  int32_t Take() {
    short_ = short_ || left_.empty();
    if (left_.empty()) return 0;
    const int32_t word = left_.front();
    left_ = left_.subspan(1);
    return word;
  }
  std::span<const int32_t> TakeList() {
    const int32_t count = Take();
    const bool fits = count >= 0 && static_cast<size_t>(count) <= left_.size();
    short_ = short_ || !fits;
    const auto list = left_.first(fits ? static_cast<size_t>(count) : 0);
    left_ = left_.subspan(list.size());
    return list;
  }
  // Whether all of it, and no more than it, was read.
  Status Whole() const {
    if (!short_ && left_.empty()) return {};
    return MakeError(ErrorCode::kInternal,
                     "rank 0 sent a message that is {} than was expected: are all ranks of one "
                     "version?",
                     short_ ? "shorter" : "longer");
  }

 private:
  std::vector<int32_t> words_;
  std::span<const int32_t> left_;
  bool short_ = false;
};

// Of the ranks that have memory of their own, with an error of one as that of all.
Result<std::optional<BackendMemory>> LeastMemory(Communicator& group,
                                                 const Result<std::optional<BackendMemory>>& mine) {
  QUERN_TRY(Agree(group, mine ? Status() : mine.error()));
  std::optional<BackendMemory> least;
  for (int rank = 0; rank < group.size(); ++rank) {
    std::array<int64_t, 3> said{};  // whether it has any, total, free
    if (rank == group.rank() && *mine) said = {1, (*mine)->total_bytes, (*mine)->free_bytes};
    QUERN_TRY(group.Broadcast(std::as_writable_bytes(std::span(said)), rank));
    const auto [there, total, free] = said;
    if (there == 0) continue;
    if (!least) least = BackendMemory{total, free};
    least = BackendMemory{std::min(least->total_bytes, total), std::min(least->free_bytes, free)};
  }
  return least;
}

class ParallelModel : public Model {
 public:
  ParallelModel(Communicator& group, std::unique_ptr<Model> part,
                std::function<void(const Error&)> on_lost)
      : group_(group), part_(std::move(part)), on_lost_(std::move(on_lost)) {}
  ~ParallelModel() override {
    // What it says of a group that is lost, on_lost_ has heard.
    if (!lost_) static_cast<void>(Message(Ask::kUnload).Send(group_));
  }

  const ModelInfo& info() const override { return part_->info(); }
  std::optional<GpuInfo> gpu() const override { return part_->gpu(); }
  // The least of all ranks': each has as many blocks of the KV cache as the others.
  Result<std::optional<BackendMemory>> device_memory() const override {
    if (lost_) return *lost_;
    QUERN_TRY(Message(Ask::kDeviceMemory).Send(group_));
    return LeastMemory(group_, part_->device_memory());
  }
  bool lost() const override { return part_->lost(); }

  Status ReserveSteps(int32_t tokens, int32_t sequences, int32_t context_tokens) override {
    QUERN_TRY(Tell(Message(Ask::kReserveSteps).Put(tokens).Put(sequences).Put(context_tokens)));
    return Agree(group_, part_->ReserveSteps(tokens, sequences, context_tokens));
  }

  void SetKvDtype(KvDtype dtype) override {
    part_->SetKvDtype(dtype);
    static_cast<void>(Tell(Message(Ask::kSetKvDtype).Put(static_cast<int32_t>(dtype))));
  }

  Status AllocateKv(const KvLayout& layout) override {
    QUERN_TRY(Tell(Message(Ask::kAllocateKv)
                       .Put(layout.block_tokens)
                       .Put(layout.num_blocks)
                       .Put(layout.window_blocks)));
    return Agree(group_, part_->AllocateKv(layout));
  }

  Status Forward(const ForwardBatch& batch, std::span<float> logits) override {
    Message message(Ask::kForward);
    message.Put(batch.first_layer).Put(batch.end_layer);
    message.Put(batch.tokens).Put(batch.positions).Put(batch.logit_rows);
    for (const ForwardBatch::Sequence& sequence : batch.sequences) {
      message.Put(sequence.first_row).Put(sequence.num_rows).Put(sequence.context_tokens);
      message.Put(sequence.blocks).Put(sequence.window_blocks);
    }
    QUERN_TRY(Tell(message));
    return Keep(part_->Forward(batch, logits));
  }

  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override {
    QUERN_TRY(Tell(Message(Ask::kReadLogits).Put(rows)));
    return Keep(part_->ReadLogits(rows, logits));
  }
  // Every rank has them.
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override {
    return part_->ReadHidden(rows, hidden);
  }

 private:
  Status Tell(Message& message) {
    if (lost_) return *lost_;
    return Keep(message.Send(group_));
  }
  // What `status` says, and for good where that is an error.
  Status Keep(Status status) {
    if (status.ok() || lost_) return status;
    lost_ = status.error();
    on_lost_(*lost_);
    return status;
  }

  Communicator& group_;
  const std::unique_ptr<Model> part_;
  const std::function<void(const Error&)> on_lost_;
  std::optional<Error> lost_;
};

// Of a kForward message, on another rank.
class ReceivedBatch {
 public:
  explicit ReceivedBatch(Received& message) {
    batch_.first_layer = message.Take();
    batch_.end_layer = message.Take();
    batch_.tokens = message.TakeList();
    batch_.positions = message.TakeList();
    batch_.logit_rows = message.TakeList();
    for (auto rows = std::ssize(batch_.tokens); rows > 0; rows -= sequences_.back().num_rows) {
      ForwardBatch::Sequence sequence{message.Take(), message.Take(), message.Take(),
                                      message.TakeList(), message.TakeList()};
      if (sequence.num_rows < 1) break;
      sequences_.push_back(sequence);
    }
    batch_.sequences = sequences_;
  }
  const ForwardBatch& batch() const { return batch_; }

 private:
  std::vector<ForwardBatch::Sequence> sequences_;
  ForwardBatch batch_;
};

// No exception may leave the other ranks waiting for what this one says.
Result<std::unique_ptr<Model>> LoadCaught(const LoadPart& load) {
  try {
    return load();
  } catch (const std::bad_alloc&) {
    return MakeError(ErrorCode::kResourceExhausted, "loading: the system has no memory left");
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kInternal, "loading: {}", error.what());
  }
}

// Whether the group goes on.
Result<bool> Do(Communicator& group, const LoadPart& load, Received& message,
                std::unique_ptr<Model>& model) {
  const auto ask = static_cast<Ask>(message.Take());
  switch (ask) {
    case Ask::kLoad: {
      QUERN_TRY(message.Whole());
      auto loaded = LoadCaught(load);
      if (!Agree(group, loaded ? Status() : loaded.error())) return true;  // rank 0 knows why
      model = std::move(loaded).value();
      return true;
    }
    case Ask::kUnload:
      model.reset();
      return true;
    case Ask::kEnd:
      return false;
    default:
      break;
  }
  if (model == nullptr) {
    return MakeError(ErrorCode::kInternal, "rank 0 asks for {} of a model that is not loaded",
                     static_cast<int32_t>(ask));
  }
  if (ask == Ask::kReserveSteps) {
    const int32_t tokens = message.Take(), sequences = message.Take(), context = message.Take();
    QUERN_TRY(message.Whole());
    // Rank 0 knows why.
    static_cast<void>(Agree(group, model->ReserveSteps(tokens, sequences, context)));
  } else if (ask == Ask::kSetKvDtype) {
    model->SetKvDtype(static_cast<KvDtype>(message.Take()));
  } else if (ask == Ask::kAllocateKv) {
    const KvLayout layout{message.Take(), message.Take(), message.Take()};
    QUERN_TRY(message.Whole());
    static_cast<void>(Agree(group, model->AllocateKv(layout)));  // rank 0 knows why
  } else if (ask == Ask::kDeviceMemory) {
    QUERN_TRY(message.Whole());
    static_cast<void>(LeastMemory(group, model->device_memory()));  // rank 0 needs it
  } else if (ask == Ask::kForward) {
    const ReceivedBatch received(message);
    QUERN_TRY(message.Whole());
    QUERN_TRY(model->Forward(received.batch(), {}));
  } else {
    const auto rows = message.TakeList();
    QUERN_TRY(message.Whole());
    QUERN_TRY(model->ReadLogits(rows, {}));
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<Model>> LoadParallelModel(Communicator& group, const LoadPart& load,
                                                 std::function<void(const Error&)> on_lost) {
  QUERN_TRY(Message(Ask::kLoad).Send(group));
  auto part = LoadCaught(load);
  if (Status all = Agree(group, part ? Status() : part.error()); !all.ok()) {
    // The group's own, which is for good.
    if (part.ok() && all.error().code == ErrorCode::kUnavailable) on_lost(all.error());
    return std::move(all).error();
  }
  return std::unique_ptr<Model>(
      std::make_unique<ParallelModel>(group, std::move(part).value(), std::move(on_lost)));
}

Status FollowParallelModel(Communicator& group, const LoadPart& load) {
  std::unique_ptr<Model> model;
  for (;;) {
    Received message;
    QUERN_TRY(message.Receive(group));
    QUERN_ASSIGN(const bool goes_on, Do(group, load, message, model));
    if (!goes_on) return {};
  }
}

Status EndFollowers(Communicator& group) { return Message(Ask::kEnd).Send(group); }

}  // namespace quern
