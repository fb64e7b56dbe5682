#pragma once

#include <cstddef>
#include <utility>

namespace quern {

// Anonymous zeroed memory, page-aligned and committed only as it is touched.
// Empty when the system has none (check data()).
class AlignedMemory {
 public:
  AlignedMemory() = default;
  // `written_whole`: all of it will be, so that huge pages, where the system has them, take no
  // more.
  explicit AlignedMemory(size_t bytes, bool written_whole = false);
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t size() const { return bytes_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace quern
