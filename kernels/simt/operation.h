#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/device.h"

// The order of the device's operations (kernels, copies, sets, frees) as happens-before: what
// clock.h is for the threads of a kernel. A line is what runs one after the other, a stream or a
// branch of a graph.
namespace quern::simt {

// The `count`th operation of a line; the first is 1.
struct Stamp {
  uint32_t line = 0;
  uint32_t count = 0;
};

// How far each line has come, as far as somebody knows.
class StreamClock {
 public:
  bool Knows(Stamp stamp) const {
    return stamp.line < known_.size() && known_[stamp.line] >= stamp.count;
  }
  bool Knows(const StreamClock& other) const {
    for (uint32_t line = 0; line < other.known_.size(); ++line) {
      if (!Knows(Stamp{line, other.known_[line]}) && other.known_[line] != 0) return false;
    }
    return true;
  }
  void Learn(Stamp stamp) {
    if (known_.size() <= stamp.line) known_.resize(stamp.line + 1);
    known_[stamp.line] = std::max(known_[stamp.line], stamp.count);
  }
  void Join(const StreamClock& other) {
    if (known_.size() < other.known_.size()) known_.resize(other.known_.size());
    for (size_t i = 0; i < other.known_.size(); ++i) {
      known_[i] = std::max(known_[i], other.known_[i]);
    }
  }
  // Forgets what `other` does not know.
  void Meet(const StreamClock& other) {
    if (known_.size() > other.known_.size()) known_.resize(other.known_.size());
    for (size_t i = 0; i < known_.size(); ++i) known_[i] = std::min(known_[i], other.known_[i]);
  }

 private:
  std::vector<uint32_t> known_;  // by line
};

// What never changes of an operation once it is in its line.
struct Operation {
  uint64_t number = 0;  // in the order in which the host asked for them, from 1
  Stamp stamp;
  StreamClock known;  // all that comes before it, and itself
  std::string name;   // "cudaMemcpyAsync", a kernel's
  std::string line;   // "stream 2"
  Where where{};      // of the host's code

  bool After(const Operation& other) const { return known.Knows(other.stamp); }
  std::string Text() const;  // "cudaMemcpyAsync (operation 7, stream 2, runtime/x.cc:12)"
};
using OperationRef = std::shared_ptr<const Operation>;

}  // namespace quern::simt
