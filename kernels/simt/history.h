#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/simt/operation.h"

namespace quern::simt {

// Some of the bytes of a page, by cells of 16, as runs of cells that have the same bytes.
class ByteRuns {
 public:
  // Cells come in rising order.
  void Add(uint16_t cell, uint16_t mask);
  bool empty() const { return runs_.empty(); }

  struct Common {
    uint16_t cell;
    uint16_t mask;
  };
  // The first cell of which both have bytes.
  std::optional<Common> Meets(const ByteRuns& other) const;
  // Whether all of the other's bytes are here, too.
  bool Covers(const ByteRuns& other) const;

 private:
  struct Run {
    uint16_t begin;
    uint16_t end;
    uint16_t mask;
  };
  std::vector<Run> runs_;
};

// What an operation did to a page.
struct PageAccess {
  OperationRef operation;
  ByteRuns read;
  ByteRuns written;
  ByteRuns atomic;  // written by atomics, which are no race with one another
};

// The accesses to a page that later operations must be ordered after.
class PageHistory {
 public:
  struct Conflict {
    OperationRef old;
    ByteRuns::Common bytes;
    bool wrote;      // now
    bool old_wrote;  // then
  };
  // The first access of which bytes are touched that it is not ordered after. Else it is kept, and
  // those forgotten that it makes superfluous.
  std::optional<Conflict> Add(PageAccess access);
  // Of any that is not before `operation`, which ends the memory's life.
  const Operation* FirstNotBefore(const StreamClock& known) const;
  // Forgets what all that is still to come will know.
  void Forget(const StreamClock& floor);
  bool empty() const { return accesses_.empty(); }

 private:
  std::vector<PageAccess> accesses_;
};

}  // namespace quern::simt
