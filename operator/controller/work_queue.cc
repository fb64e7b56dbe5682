#include "operator/controller/work_queue.h"

#include <algorithm>
#include <cmath>

namespace quern::control {

WorkQueue::WorkQueue(WorkQueueOptions options, const Clock& clock, WorkQueueHooks hooks)
    : options_(options),
      clock_(clock),
      hooks_(std::move(hooks)),
      tokens_(options.retry_burst),
      tokens_at_(clock.Now()) {}

bool WorkQueue::Add(const ObjectKey& key) {
  bool full = false;
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    if (shut_down_) return false;
    news = !dirty_.contains(key);
    full = news && dirty_.size() + due_.size() >= options_.max_keys;
    if (!full) AddLocked(key);
  }
  if (full) {
    if (hooks_.on_full) hooks_.on_full();
    return false;
  }
  changed_.notify_one();
  if (news && hooks_.on_add) hooks_.on_add();
  return true;
}

// A key in work only becomes dirty: Done brings it back, so that no two workers ever have it.
void WorkQueue::AddLocked(const ObjectKey& key) {
  if (!dirty_.emplace(key, clock_.Now()).second) return;
  if (!in_work_.contains(key)) ready_.push_back(key);
}

bool WorkQueue::AddAfter(const ObjectKey& key, std::chrono::nanoseconds delay) {
  if (delay.count() <= 0) return Add(key);
  bool full = false;
  {
    const std::lock_guard lock(mutex_);
    if (shut_down_) return false;
    const SteadyTime due = clock_.Now() + delay;
    const auto found = due_.find(key);
    if (found != due_.end() && found->second <= due) return true;
    full = found == due_.end() && dirty_.size() + due_.size() >= options_.max_keys;
    if (!full) {
      due_[key] = due;
      delayed_.push({due, sequence_++, key});
      // A key that is moved forward again and again leaves its later entries behind: clear them out
      // before they outnumber what is real.
      if (delayed_.size() > 2 * due_.size() + 64) {
        decltype(delayed_) rebuilt;
        for (const auto& [delayed_key, when] : due_) {
          rebuilt.push({when, sequence_++, delayed_key});
        }
        delayed_ = std::move(rebuilt);
      }
    }
  }
  if (full && hooks_.on_full) hooks_.on_full();
  if (!full) changed_.notify_all();  // whoever waits has a new time to wake at
  return !full;
}

std::chrono::nanoseconds WorkQueue::AddRateLimited(const ObjectKey& key) {
  std::chrono::nanoseconds delay;
  {
    const std::lock_guard lock(mutex_);
    const int retries = retries_[key];
    ++retries_[key];
    delay = options_.max_backoff;
    // base * 2^62 would overflow; anything near is beyond the maximum anyway.
    if (retries < 62 &&
        options_.base_backoff.count() <= (options_.max_backoff.count() >> retries)) {
      delay = options_.base_backoff * (int64_t{1} << retries);
    }
    delay = std::max(delay, ReserveTokenLocked());
  }
  if (hooks_.on_retry) hooks_.on_retry();
  AddAfter(key, delay);
  return delay;
}

// Takes a token, from the future where there is none left, and returns how far away that is.
std::chrono::nanoseconds WorkQueue::ReserveTokenLocked() {
  const SteadyTime now = clock_.Now();
  const double elapsed = Seconds(now - tokens_at_).count();
  tokens_ = std::min(options_.retry_burst, tokens_ + elapsed * options_.retries_per_second);
  tokens_at_ = now;
  tokens_ -= 1;
  if (tokens_ >= 0) return std::chrono::nanoseconds(0);
  // As far as the longest back-off, so that a storm's debt is bounded.
  const double longest = Seconds(options_.max_backoff).count() * options_.retries_per_second;
  tokens_ = std::max(tokens_, -longest);
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      Seconds(-tokens_ / options_.retries_per_second));
}

void WorkQueue::CountRetry(const ObjectKey& key) {
  {
    const std::lock_guard lock(mutex_);
    ++retries_[key];
  }
  if (hooks_.on_retry) hooks_.on_retry();
}

void WorkQueue::Forget(const ObjectKey& key) {
  const std::lock_guard lock(mutex_);
  retries_.erase(key);
}

int WorkQueue::Retries(const ObjectKey& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = retries_.find(key);
  return found == retries_.end() ? 0 : found->second;
}

void WorkQueue::MoveDueLocked() {
  const SteadyTime now = clock_.Now();
  while (!delayed_.empty() && delayed_.top().due <= now) {
    const Delayed top = delayed_.top();
    delayed_.pop();
    const auto found = due_.find(top.key);
    if (found == due_.end() || found->second != top.due) continue;  // moved forward meanwhile
    due_.erase(found);
    AddLocked(top.key);
  }
}

std::optional<ObjectKey> WorkQueue::TakeLocked(Seconds* waited) {
  MoveDueLocked();
  if (shut_down_ || ready_.empty()) return std::nullopt;
  ObjectKey key = std::move(ready_.front());
  ready_.pop_front();
  const SteadyTime now = clock_.Now();
  const auto since = dirty_.find(key);
  *waited = now - since->second;
  dirty_.erase(since);
  in_work_.emplace(key, now);
  return key;
}

std::optional<ObjectKey> WorkQueue::Get(std::stop_token stop) {
  Seconds waited{0};
  std::optional<ObjectKey> key;
  {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (shut_down_ || stop.stop_requested()) return std::nullopt;
      key = TakeLocked(&waited);
      if (key) break;
      const auto wake = [&] {
        return shut_down_ || !ready_.empty() ||
               (!delayed_.empty() && delayed_.top().due <= clock_.Now());
      };
      if (delayed_.empty()) {
        changed_.wait(lock, stop, [&] { return wake() || !delayed_.empty(); });
      } else {
        const SteadyTime due = delayed_.top().due;
        changed_.wait_until(lock, stop, due,
                            [&] { return wake() || delayed_.empty() || delayed_.top().due < due; });
      }
    }
  }
  if (hooks_.on_start) hooks_.on_start(waited);
  return key;
}

std::optional<ObjectKey> WorkQueue::TryGet() {
  Seconds waited{0};
  std::optional<ObjectKey> key;
  {
    const std::lock_guard lock(mutex_);
    key = TakeLocked(&waited);
  }
  if (key && hooks_.on_start) hooks_.on_start(waited);
  return key;
}

void WorkQueue::Done(const ObjectKey& key) {
  Seconds took{0};
  {
    const std::lock_guard lock(mutex_);
    const auto found = in_work_.find(key);
    if (found == in_work_.end()) return;
    took = clock_.Now() - found->second;
    in_work_.erase(found);
    if (dirty_.contains(key)) ready_.push_back(key);
  }
  changed_.notify_one();
  if (hooks_.on_done) hooks_.on_done(took);
}

void WorkQueue::ShutDown() {
  {
    const std::lock_guard lock(mutex_);
    shut_down_ = true;
  }
  changed_.notify_all();
}

size_t WorkQueue::depth() const {
  const std::lock_guard lock(mutex_);
  return ready_.size();
}

size_t WorkQueue::delayed() const {
  const std::lock_guard lock(mutex_);
  return due_.size();
}

std::optional<SteadyTime> WorkQueue::NextDue() const {
  const std::lock_guard lock(mutex_);
  std::optional<SteadyTime> next;
  for (const auto& [key, due] : due_) {
    if (!next || due < *next) next = due;
  }
  return next;
}

}  // namespace quern::control
