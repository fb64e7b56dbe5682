#pragma once

#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace quern::simt {

struct Stack {
  uint8_t* low = nullptr;
  uint8_t* high = nullptr;

  bool Contains(uintptr_t address) const {
    return address >= reinterpret_cast<uintptr_t>(low) &&
           address < reinterpret_cast<uintptr_t>(high);
  }
};

// Stacks of the emulated threads, from one range of addresses, each with a page below it that
// cannot be touched. They are kept for the next launch. A kernel that is given up leaves its stacks
// as they are: nothing on them is destroyed.
class StackPool {
 public:
  static constexpr size_t kSlotBytes = size_t{128} << 10;
  static constexpr size_t kSlots = 4096;

  StackPool();
  ~StackPool();
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;

  Stack Take();  // throws std::bad_alloc if there is none
  void Give(Stack stack) { free_.push_back(stack); }
  bool Contains(uintptr_t address) const {
    return address - reinterpret_cast<uintptr_t>(base_) < kSlots * kSlotBytes;
  }

 private:
  uint8_t* base_;
  size_t used_ = 0;
  std::vector<Stack> free_;
};

// A place to continue at. Whoever is switched to learns where the one before it stopped.
using Context = boost::context::detail::fcontext_t;

inline Context MakeContext(Stack stack, void (*entry)(boost::context::detail::transfer_t from)) {
  return boost::context::detail::make_fcontext(stack.high,
                                               static_cast<size_t>(stack.high - stack.low), entry);
}

inline void Arrived(boost::context::detail::transfer_t from) {
  *static_cast<Context*>(from.data) = from.fctx;
}

// Stops here, to be continued at *here, and continues at `there`.
inline void Switch(Context* here, Context there) {
  Arrived(boost::context::detail::jump_fcontext(there, here));
}

}  // namespace quern::simt
