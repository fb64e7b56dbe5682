#include <algorithm>
#include <array>

#include "runtime/distributed/agree_in_rounds.h"
#include "runtime/distributed/communicator.h"

namespace quern {
namespace {

// Between two of the ranks' questions to each other.
constexpr std::chrono::milliseconds kRound{50};

}  // namespace

Status AgreeInRounds(
    Communicator& group, std::chrono::milliseconds timeout, const Error& late,
    const std::function<std::optional<Status>(std::chrono::steady_clock::time_point)>& wait_until) {
  using SteadyTimePoint = std::chrono::steady_clock::time_point;
  const auto now = [] { return std::chrono::steady_clock::now(); };
  const SteadyTimePoint deadline = now() + timeout;
  std::optional<Status> mine;
  for (;;) {
    if (!mine) mine = wait_until(std::min(SteadyTimePoint(now() + kRound), deadline));
    const bool waits = !mine;
    if (waits && now() >= deadline) mine = Status(late);
    std::array<float, 2> waiting_and_failed = {waits ? 1.0f : 0.0f,
                                               mine && !mine->ok() ? 1.0f : 0.0f};
    QUERN_TRY(group.AllReduceSum(waiting_and_failed));
    const auto [waiting, failed] = waiting_and_failed;
    if (failed > 0) return Agree(group, mine.value_or(Status()));
    if (waiting == 0) return {};
  }
}

Status Agree(Communicator& group, const Status& mine) {
  struct Said {
    bool ok = true;
    ErrorCode code = ErrorCode::kInternal;
    std::array<char, 1000> text{};  // cut off where it is longer
  };
  Status first;
  for (int rank = 0; rank < group.size(); ++rank) {
    Said said;
    if (rank == group.rank() && !mine.ok()) {
      said.ok = false;
      said.code = mine.error().code;
      mine.error().message.copy(said.text.data(), said.text.size() - 1);
    }
    QUERN_TRY(group.Broadcast(std::as_writable_bytes(std::span(&said, 1)), rank));
    said.text.back() = '\0';
    if (said.ok || !first.ok()) continue;
    if (rank == group.rank()) {
      first = mine;
    } else {
      first = MakeError(said.code, "rank {} of {}: {}", rank, group.size(), said.text.data());
    }
  }
  return first;
}

}  // namespace quern
