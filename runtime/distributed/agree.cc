#include <array>

#include "runtime/distributed/communicator.h"

namespace quern {

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
