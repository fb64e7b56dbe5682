#include "runtime/engine/mask_worker.h"

#include <algorithm>
#include <cassert>

namespace quern {

MaskWorker::~MaskWorker() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void MaskWorker::Begin(std::span<Constraint* const> constraints) {
  assert(!begun_);
  jobs_.resize(std::max(jobs_.size(), constraints.size()));  // masks keep their memory
  for (Job& job : jobs_) job.constraint = nullptr;
  for (size_t i = 0; i < constraints.size(); ++i) {
    jobs_[i].constraint = constraints[i];
    begun_ = begun_ || constraints[i] != nullptr;
  }
  if (!begun_) return;
  {
    std::lock_guard lock(mutex_);
    work_ = true;
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  changed_.notify_all();
}

void MaskWorker::Wait() {
  if (!begun_) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !work_; });
  begun_ = false;
}

Status MaskWorker::Apply(size_t index, std::span<float> logits) const {
  const Job& job = jobs_[index];
  assert(!begun_ && job.constraint != nullptr);
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

void MaskWorker::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return work_ || stop_; });
    if (stop_) return;
    lock.unlock();
    for (Job& job : jobs_) {
      if (job.constraint == nullptr) continue;
      job.mask.resize(MaskWords(job.constraint->vocab_size()));
      job.status = job.constraint->ComputeMask(job.mask);
    }
    lock.lock();
    work_ = false;
    changed_.notify_all();
  }
}

}  // namespace quern
