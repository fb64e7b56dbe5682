#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace quern::http {

// Bytes on their way to a socket: the front is being written while more gather at the back. What a
// large content needed is given back when all of it has gone out: the connection may be kept, idle,
// for long, and so may a thousand others.
class WriteBuffer {
 public:
  // Up to `kept_bytes` of memory are kept for what comes next.
  explicit WriteBuffer(size_t kept_bytes) : kept_bytes_(kept_bytes) {}

  void Append(std::string_view bytes) { back_ += bytes; }
  size_t size() const { return front_.size() - taken_ + back_.size(); }
  // What is to be written next, empty if nothing waits. Stays valid until Consume, also when more
  // is appended.
  std::string_view Front() {
    if (taken_ == front_.size()) {
      front_.clear();
      taken_ = 0;
      std::swap(front_, back_);
    }
    return std::string_view(front_).substr(taken_);
  }
  // The first `bytes` of Front have gone out.
  void Consume(size_t bytes) {
    taken_ += bytes;
    if (size() > 0) return;
    front_.clear();
    taken_ = 0;
    for (std::string* part : {&front_, &back_}) {
      if (part->capacity() > kept_bytes_) std::string().swap(*part);
    }
  }
  size_t capacity() const { return front_.capacity() + back_.capacity(); }

 private:
  const size_t kept_bytes_;
  std::string front_;
  std::string back_;
  size_t taken_ = 0;  // bytes of front_ that have gone out
};

}  // namespace quern::http
