#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "runtime/base/result.h"

namespace quern {

// The processes that serve one model together, `size` of them, and what they do together. Every
// rank makes the same calls in the same order with spans of the same lengths; a call returns when
// this rank's part is done. Sums are taken in an order that depends on the length and the size
// alone: the same bits on every rank, and in every run.
//
// An error (a rank that ended, a call that took longer than the timeout) is final: the group is out
// of step, and each later call gives the same error at once. What to do then is to end the process,
// so that the group is started anew. Not thread-safe.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // 0 to size - 1
  virtual int size() const = 0;

  // Adds up every rank's `values`, elementwise, in place.
  virtual Status AllReduceSum(std::span<float> values) = 0;
  // Puts the ranks' parts one after the other: `all` is size times as long as `mine`, and apart
  // from it.
  virtual Status AllGather(std::span<const float> mine, std::span<float> all) = 0;
  // The same, to the rank `root` alone; `all` is not used by the others.
  virtual Status Gather(std::span<const float> mine, std::span<float> all, int root) = 0;
  // Makes every rank's `bytes` those of `root`.
  virtual Status Broadcast(std::span<std::byte> bytes, int root) = 0;
  // The same from rank 0, for which the others wait without a timeout: it may have nothing to do
  // for hours. Still an error at once where its process ends.
  virtual Status Await(std::span<std::byte> bytes) = 0;
  // Returns once every rank has come here.
  virtual Status Barrier() = 0;
};

// Every rank's `mine` becomes the error of the first rank that has one, with whose it is. Also the
// group's own errors.
Status Agree(Communicator& group, const Status& mine);

// Of one process alone: nothing is sent.
std::unique_ptr<Communicator> MakeSingleCommunicator();

// Processes that reach each other by TCP.
struct GlooOptions {
  int rank = 0;
  int size = 1;
  std::string host = "127.0.0.1";  // this rank's own address, on which it listens
  // A folder that all ranks see; they leave their addresses in it.
  std::filesystem::path rendezvous;
  // Tells this group's files from those of an earlier one in the same folder: must be new each
  // time. Letters, digits, - and _.
  std::string group = "group";
  std::chrono::milliseconds timeout{60'000};  // of finding each other, and of each call
};

// Meets the other ranks; returns when all have come. kInvalidArgument for options that are wrong,
// kUnavailable when a rank did not come in time or the network failed. The connections are neither
// encrypted nor authenticated: the ranks' network must be their own. SIGPIPE is ignored from then
// on in this process, unless it has a handler: a rank that ends would end the others with it.
Result<std::unique_ptr<Communicator>> MakeGlooCommunicator(const GlooOptions& options);

}  // namespace quern
