#pragma once

#include <spdlog/spdlog.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace quern::server {

// Threads for work that is too long for an I/O thread: parsing and encoding long prompts, and
// compiling what answers must look like. What waits is bounded by the AdmissionGate, through which
// every task comes. Tenants take turns, so that none waits behind all that another has sent.
// Thread-safe.
class EncodePool {
 public:
  explicit EncodePool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
  }
  // Drops what has not begun and waits for what has.
  ~EncodePool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  EncodePool(const EncodePool&) = delete;
  EncodePool& operator=(const EncodePool&) = delete;

  // `tenant`: whose turn it takes; its name, "" where no keys are used.
  // What `task` throws (for want of memory, most likely) is logged; the task is let go of then.
  void Run(const std::string& tenant, std::function<void()> task) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      auto& tasks = tasks_[tenant];
      if (tasks.empty()) turns_.push_back(tenant);
      tasks.push_back(std::move(task));
    }
    wake_.notify_one();
  }

 private:
  // The first task of the tenant whose turn it is, which goes behind the others. There is one.
  std::function<void()> TakeNext() {
    const auto mine = tasks_.find(turns_.front());
    turns_.pop_front();
    auto task = std::move(mine->second.front());
    mine->second.pop_front();
    if (mine->second.empty()) {
      tasks_.erase(mine);
    } else {
      turns_.push_back(mine->first);
    }
    return task;
  }
  void Loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !turns_.empty(); });
      if (stopping_) return;
      {
        const auto task = TakeNext();
        lock.unlock();
        try {
          task();
        } catch (const std::exception& error) {
          spdlog::error("preparing a request threw: {}", error.what());
        }
      }  // what the task held goes before the lock is taken again
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, std::deque<std::function<void()>>> tasks_;  // none is empty
  std::deque<std::string> turns_;                                   // each tenant of tasks_ once
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quern::server
