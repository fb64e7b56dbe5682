#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/devices.h"
#include "runtime/distributed/communicator.h"
#include "runtime/model/model.h"
#include "runtime/serve_options.h"

namespace quern {

// What one rank computes, on a device that is chosen by all ranks together when they load first,
// and stays.
class RankPart {
 public:
  // `group` outlives it.
  RankPart(const ServeOptions& options, Communicator& group) : options_(options), group_(group) {}

  // Its part of the model, at the same time as the other ranks. Errors: those of ChooseRankDevice
  // and of LoadModelOn.
  Result<std::unique_ptr<Model>> Load();
  // A rank has ended: what waits for its GPU gives up. From any thread.
  void Abort();

 private:
  Status Choose();

  const ServeOptions options_;
  Communicator& group_;
  bool chosen_ = false;
  std::mutex mutex_;
  bool aborted_ = false;
  RankDevice device_;
};

// The processes that serve one model together, as rank 0 has them: this one, and those that it
// starts. A rank that ends cannot be replaced: `on_lost` is called, from any thread, maybe more
// than once, and what is left is to end this process.
class Ranks {
 public:
  // Starts options.tensor_parallel_size - 1 others: this program with the same arguments, which
  // end with the thread that calls this, at the latest. Errors: kUnavailable.
  static Result<std::unique_ptr<Ranks>> Start(const ServeOptions& options, int argc, char** argv,
                                              std::function<void(const Error&)> on_lost);
  // Has the others end, kills those that do not at once, and reaps them. No model uses them now.
  ~Ranks();
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  // Every rank loads its part, after they have met. Errors: those of Model::Load, with whose it
  // is; kUnavailable.
  Result<std::unique_ptr<Model>> Load(const ServeOptions& options);
  // Requests are done, and the model goes: others that have not ended `patience` after this first
  // call are killed, whatever waits for them then.
  void EndWithin(std::chrono::milliseconds patience);
  // Ends the others at once, whatever another thread does with them; for a process that ends.
  void Kill();

 private:
  struct Other {
    int rank = 0;
    pid_t process = 0;
    bool ended = false;
    std::thread watch;
  };

  Ranks(const ServeOptions& options, std::function<void(const Error&)> on_lost)
      : size_(options.tensor_parallel_size), on_lost_(std::move(on_lost)) {}
  void Watch(Other& other);
  void Lose(const Error& error);

  const int size_;
  const std::function<void(const Error&)> on_lost_;
  std::filesystem::path rendezvous_;
  std::unique_ptr<Communicator> group_;  // null until they have met
  std::unique_ptr<RankPart> part_;       // the same; set with the mutex
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  bool lost_ = false;
  std::vector<Other> others_;  // does not move: each has a thread that looks at it
  std::thread end_;            // EndWithin's
};

// The model that is served, by this process alone (ranks null) or by all of them.
Result<std::unique_ptr<Model>> LoadServed(const ServeOptions& options, Ranks* ranks);

// What Ranks starts: "quern-serve --tensor-parallel-rank RANK FOLDER ARGUMENT...", with the
// arguments of rank 0 and the folder in which the ranks meet. For that alone: it is no option.
inline constexpr std::string_view kFollower = "--tensor-parallel-rank";
inline constexpr int kFollowerArguments = 3;  // that come before rank 0's

// What such a process does, until rank 0 ends. Returns the exit code.
int FollowerMain(const ServeOptions& options, int rank, const std::filesystem::path& rendezvous);

}  // namespace quern
