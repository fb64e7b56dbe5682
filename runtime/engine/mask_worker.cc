#include "runtime/engine/mask_worker.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace quern {

MaskWorker::~MaskWorker() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wanted_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MaskWorker::Begin(std::span<const std::shared_ptr<MaskJob>> rows) {
  assert(!begun_);
  rows_.clear();
  for (const auto& job : rows) {
    rows_.push_back({.job = job.get(), .ready = job == nullptr});
    begun_ = begun_ || job != nullptr;
  }
  if (!begun_) return;
  {
    std::lock_guard lock(mutex_);
    for (const auto& job : rows) {
      if (job == nullptr || job->state != MaskJob::State::kIdle) continue;
      job->state = MaskJob::State::kWanted;
      auto& queue = queues_[job->tenant];
      if (queue.empty()) turns_.push_back(job->tenant);
      queue.push_back(job);
    }
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  wanted_.notify_all();
}

void MaskWorker::Wait(std::chrono::milliseconds patience, bool others) {
  if (!begun_) return;
  begun_ = false;
  const auto can_go_on = [](const Row& row) {
    return row.job == nullptr || row.job->state == MaskJob::State::kReady;
  };
  std::unique_lock lock(mutex_);
  const auto all_can = [&] { return std::ranges::all_of(rows_, can_go_on); };
  if (!clock_.WaitFor(ready_, lock, patience, all_can)) {
    ready_.wait(lock, [&] { return others || std::ranges::any_of(rows_, can_go_on); });
  }
  for (Row& row : rows_) {
    row.ready = can_go_on(row);
    if (row.ready && row.job != nullptr) row.job->state = MaskJob::State::kIdle;
  }
}

Status MaskWorker::Apply(size_t row, std::span<float> logits) const {
  assert(!begun_ && rows_[row].ready && rows_[row].job != nullptr);
  const MaskJob& job = *rows_[row].job;
  QUERN_TRY(job.status);
  const size_t vocabulary = std::min(job.constraint->vocab_size(), logits.size());
  for (size_t word = 0; word < job.mask.size(); ++word) {
    const uint32_t allowed = job.mask[word];
    if (allowed == ~uint32_t{0}) continue;
    const size_t end = std::min(vocabulary, (word + 1) * 32);
    for (size_t id = word * 32; id < end; ++id) {
      if (((allowed >> (id % 32)) & 1) == 0) logits[id] = kForbiddenLogit;
    }
  }
  std::fill(logits.begin() + static_cast<std::ptrdiff_t>(vocabulary), logits.end(),
            kForbiddenLogit);
  return {};
}

bool MaskWorker::AllowsOnly(size_t row, std::span<const int32_t> tokens) const {
  assert(!begun_ && rows_[row].ready && rows_[row].job != nullptr);
  const std::vector<uint32_t>& mask = rows_[row].job->mask;
  int64_t left = 0;
  for (const uint32_t word : mask) left += std::popcount(word);
  for (const int32_t token : tokens) {
    const auto id = static_cast<size_t>(token);
    if (id < rows_[row].job->constraint->vocab_size() && MaskAllows(mask, id)) --left;
  }
  return left == 0;
}

std::shared_ptr<MaskJob> MaskWorker::TakeNext() {
  const auto queue = queues_.find(turns_.front());
  turns_.pop_front();
  auto job = queue->second.front().lock();
  queue->second.pop_front();
  if (queue->second.empty()) {
    queues_.erase(queue);
  } else {
    turns_.push_back(queue->first);
  }
  return job;
}

void MaskWorker::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(lock, [this] { return stop_ || !turns_.empty(); });
    if (stop_) return;
    auto job = TakeNext();
    if (job == nullptr) continue;
    lock.unlock();
    if (job->before) job->before();
    job->mask.resize(MaskWords(job->constraint->vocab_size()));
    job->status = job->constraint->ComputeMask(job->mask);
    lock.lock();
    job->state = MaskJob::State::kReady;
    ready_.notify_all();
    lock.unlock();
    job.reset();  // its request may have ended meanwhile: not under the lock
    lock.lock();
  }
}

}  // namespace quern
