#include "operator/simulation/fleet.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace quern::simulation {

Fleet::Fleet(const ReplicaProfile& profile, const Load& load, double start_up, int64_t initial)
    : profile_(profile),
      load_(load),
      start_up_(start_up),
      desired_(initial),
      outcomes_(load.size()) {
  for (int64_t i = 0; i < initial; ++i) Start(0, 0);
}

void Fleet::Start(double time, double ready_at) {
  pods_.push_back(std::make_unique<Pod>(profile_, load_, *this, Life{time, ready_at, -1}));
  pods_.back()->id = next_id_++;
}

void Fleet::AdvanceTo(double time) {
  time_ = time;
  for (const auto& pod : pods_) pod->replica.AdvanceTo(time);
  if (draining_) Retire();
}

void Fleet::Retire() {
  draining_ = false;
  std::erase_if(pods_, [&](const std::unique_ptr<Pod>& pod) {
    if (!pod->drains) return false;
    if (pod->replica.outstanding() > 0) {
      draining_ = true;
      return false;
    }
    pod->life.gone = std::max(pod->life.gone, pod->replica.last_finish());
    gone_.push_back(pod->life);
    gone_last_finish_ = std::max(gone_last_finish_, pod->replica.last_finish());
    gone_busy_ += pod->replica.busy_seconds();
    gone_preemptions_ += pod->replica.preemptions();
    return true;
  });
}

void Fleet::Arrive(uint32_t request) {
  const auto worth = [&](const std::unique_ptr<Pod>& pod) {
    return std::tuple(pod->drains || !pod->is_ready(time_), pod->replica.outstanding());
  };
  const auto best = std::ranges::min_element(pods_, {}, worth);
  assert(best != pods_.end() && (*best)->is_ready(time_));  // ready pods are the last to go
  (*best)->replica.Add(request);
}

void Fleet::Resize(double time, int64_t replicas) {
  assert(replicas >= 1);
  for (; desired_ < replicas; ++desired_) Start(time, time + start_up_);
  for (; desired_ > replicas; --desired_) StopOne(time);
  if (draining_) Retire();
}

void Fleet::StopOne(double time) {
  const auto worth = [&](const std::unique_ptr<Pod>& pod) {
    return std::tuple(pod->drains, pod->is_ready(time), pod->replica.outstanding(), -pod->id);
  };
  Pod& cheapest = **std::ranges::min_element(pods_, {}, worth);
  cheapest.drains = true;
  cheapest.life.gone = time;  // or as soon as it is empty
  draining_ = true;
}

FleetView Fleet::View(double time) const {
  FleetView view;
  view.now = time;
  view.desired = desired_;
  for (const auto& pod : pods_) {
    if (pod->drains) continue;
    PodView& out = view.pods.emplace_back();
    out.id = pod->id;
    out.created = pod->life.created;
    out.ready_at = pod->life.ready_at;
    out.ready = pod->is_ready(time);
    out.running = static_cast<double>(pod->replica.running());
    out.waiting = static_cast<double>(pod->replica.waiting());
    out.active_seconds = pod->replica.ActiveIntegral(time);
    out.counters = pod->replica.counters();
  }
  return view;
}

bool Fleet::idle() const {
  return std::all_of(pods_.begin(), pods_.end(),
                     [](const auto& pod) { return pod->replica.outstanding() == 0; });
}

double Fleet::last_finish() const {
  double last = gone_last_finish_;
  for (const auto& pod : pods_) last = std::max(last, pod->replica.last_finish());
  return last;
}

double Fleet::ReplicaSeconds(double end) const {
  double seconds = 0;
  for (const Life& life : Lives()) {
    seconds += (life.gone < 0 ? end : std::min(life.gone, end)) - life.created;
  }
  return seconds;
}

double Fleet::busy_seconds() const {
  double seconds = gone_busy_;
  for (const auto& pod : pods_) seconds += pod->replica.busy_seconds();
  return seconds;
}

int64_t Fleet::preemptions() const {
  int64_t count = gone_preemptions_;
  for (const auto& pod : pods_) count += pod->replica.preemptions();
  return count;
}

std::vector<Fleet::Life> Fleet::Lives() const {
  std::vector<Life> lives = gone_;
  for (const auto& pod : pods_) lives.push_back(pod->life);
  return lives;
}

}  // namespace quern::simulation
