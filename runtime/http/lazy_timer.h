#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <utility>

namespace quern::http {

// A deadline that moves often and rarely passes: moving it later costs no system call and no heap
// operation, because the underlying timer looks at the deadline only when it fires.
// All on one strand: `executor`.
class LazyTimer {
 public:
  using Time = std::chrono::steady_clock::time_point;

  template <typename Executor>
  LazyTimer(const Executor& executor, std::function<void()> on_expiry)
      : timer_(executor), on_expiry_(std::move(on_expiry)) {}

  // `owner` is kept alive while the timer runs.
  void Set(std::chrono::milliseconds from_now, std::shared_ptr<void> owner) {
    deadline_ = std::chrono::steady_clock::now() + from_now;
    if (armed_ && fires_at_ <= deadline_) return;
    Arm(std::move(owner));
  }
  void Clear() { deadline_ = Time::max(); }
  // Lets go of the owner.
  void Cancel() {
    deadline_ = Time::max();
    timer_.cancel();
  }

 private:
  void Arm(std::shared_ptr<void> owner) {
    armed_ = true;
    fires_at_ = deadline_;
    timer_.expires_at(deadline_);  // cancels a wait under way
    timer_.async_wait([this, owner = std::move(owner)](const boost::system::error_code& error) {
      if (error) return;  // cancelled: whoever cancelled has set armed_
      armed_ = false;
      if (deadline_ == Time::max()) return;
      if (std::chrono::steady_clock::now() < deadline_) {
        Arm(owner);
        return;
      }
      deadline_ = Time::max();
      on_expiry_();
    });
  }

  boost::asio::steady_timer timer_;
  std::function<void()> on_expiry_;
  Time deadline_ = Time::max();
  Time fires_at_ = Time::max();
  bool armed_ = false;
};

}  // namespace quern::http
