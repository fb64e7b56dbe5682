#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/rendezvous/prefix_store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <cassert>
#include <csignal>
#include <optional>
#include <system_error>

#include "runtime/distributed/communicator.h"

namespace quern {
namespace {

// gloo's TCP has no other way to wait without an end: its kNoTimeout is a wait of no time at all.
constexpr std::chrono::hours kForEver(24 * 365 * 10);

// gloo begins its messages with the place in its source.
std::string Cause(const std::exception& error) {
  std::string text = error.what();
  if (text.starts_with('[')) {
    if (const size_t end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
  }
  return text;
}

class GlooCommunicator : public Communicator {
 public:
  GlooCommunicator(std::shared_ptr<gloo::Context> context, std::chrono::milliseconds timeout)
      : context_(std::move(context)), timeout_(timeout) {}

  int rank() const override { return context_->rank; }
  int size() const override { return context_->size; }

  Status AllReduceSum(std::span<float> values) override {
    if (values.empty()) return {};
    return Run("an all-reduce", [&](uint32_t tag) {
      gloo::AllreduceOptions options(context_);
      options.setOutput(values.data(), values.size());
      // One order of sums; the default one would be chosen by the length.
      options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
      options.setReduceFunction(
          [](void* to, const void* a, const void* b, size_t n) { gloo::sum<float>(to, a, b, n); });
      options.setTag(tag);
      gloo::allreduce(options);
    });
  }

  Status AllGather(std::span<const float> mine, std::span<float> all) override {
    assert(all.size() == mine.size() * static_cast<size_t>(size()));
    if (mine.empty()) return {};
    return Run("an all-gather", [&](uint32_t tag) {
      gloo::AllgatherOptions options(context_);
      options.setInput(const_cast<float*>(mine.data()), mine.size());  // which it only reads
      options.setOutput(all.data(), all.size());
      options.setTag(tag);
      gloo::allgather(options);
    });
  }

  Status Gather(std::span<const float> mine, std::span<float> all, int root) override {
    assert(root >= 0 && root < size());
    assert(rank() != root || all.size() == mine.size() * static_cast<size_t>(size()));
    if (mine.empty()) return {};
    return Run("a gather", [&](uint32_t tag) {
      gloo::GatherOptions options(context_);
      options.setInput(const_cast<float*>(mine.data()), mine.size());  // which it only reads
      if (rank() == root) options.setOutput(all.data(), all.size());
      options.setRoot(root);
      options.setTag(tag);
      gloo::gather(options);
    });
  }

  Status Broadcast(std::span<std::byte> bytes, int root) override {
    return BroadcastWithin(timeout_, bytes, root);
  }

  // Rank 0 waits, too, until the others take it.
  Status Await(std::span<std::byte> bytes) override {
    return BroadcastWithin(rank() == 0 ? timeout_ : kForEver, bytes, 0);
  }

  Status Barrier() override {
    return Run("a barrier", [&](uint32_t tag) {
      gloo::BarrierOptions options(context_);
      options.setTag(tag);
      gloo::barrier(options);
    });
  }

 private:
  Status BroadcastWithin(std::chrono::milliseconds timeout, std::span<std::byte> bytes, int root) {
    assert(root >= 0 && root < size());
    if (bytes.empty()) return {};
    return Run("a broadcast", [&](uint32_t tag) {
      gloo::BroadcastOptions options(context_);
      options.setOutput(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
      options.setRoot(root);
      options.setTag(tag);
      options.setTimeout(timeout);
      gloo::broadcast(options);
    });
  }

  template <typename Operation>
  Status Run(const char* what, const Operation& operation) {
    if (broken_) return *broken_;
    try {
      operation(tag_++);
      return {};
    } catch (const std::exception& error) {
      broken_ =
          MakeError(ErrorCode::kUnavailable,
                    "rank {} of {}: {} failed: another rank has ended, or was not there within "
                    "{} ms ({})",
                    rank(), size(), what, timeout_.count(), Cause(error));
      return *broken_;
    }
  }

  const std::shared_ptr<gloo::Context> context_;
  const std::chrono::milliseconds timeout_;
  uint32_t tag_ = 0;  // of each call its own, so that calls cannot take each other's messages
  std::optional<Error> broken_;
};

Status Check(const GlooOptions& options) {
  if (options.size < 1 || options.rank < 0 || options.rank >= options.size) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "rank {} of {} processes: the rank must be from 0 to one less than their number",
        options.rank, options.size);
  }
  const auto fits = [](char c) {
    return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  };
  if (options.group.empty() || !std::all_of(options.group.begin(), options.group.end(), fits)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the group's name is \"{}\"; letters, digits, - and _ are right",
                     options.group);
  }
  std::error_code error;
  if (!std::filesystem::is_directory(options.rendezvous, error)) {
    return MakeError(ErrorCode::kInvalidArgument, "the rendezvous \"{}\" is no folder",
                     options.rendezvous.string());
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Communicator>> MakeGlooCommunicator(const GlooOptions& options) {
  QUERN_TRY(Check(options));
  if (options.size == 1) return MakeSingleCommunicator();
  // gloo writes to the socket of a rank that has just ended without asking for no signal.
  struct sigaction now {};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) {
    std::signal(SIGPIPE, SIG_IGN);
  }
  try {
    gloo::transport::tcp::attr attributes(options.host.c_str());
    auto device = gloo::transport::tcp::CreateDevice(attributes);
    gloo::rendezvous::FileStore files(options.rendezvous.string());
    gloo::rendezvous::PrefixStore store(options.group, files);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.size);
    context->setTimeout(options.timeout);
    context->connectFullMesh(store, device);
    return std::unique_ptr<Communicator>(
        std::make_unique<GlooCommunicator>(std::move(context), options.timeout));
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kUnavailable,
                     "rank {} of {} on {}: the other ranks were not met within {} ms ({})",
                     options.rank, options.size, options.host, options.timeout.count(),
                     Cause(error));
  }
}

}  // namespace quern
