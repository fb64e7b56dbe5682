#include "operator/simulation/clairvoyant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_set>
#include <vector>

namespace quern::simulation {
namespace {

constexpr size_t kCaps = 16;    // of a request's work: t
constexpr size_t kPrices = 20;  // of a miss: l
constexpr double kRatio = 1.6;  // between two of them

// What a request must have done for it, in seconds of a replica, and between which bounds.
struct Work {
  double prompt = 0;  // of its prompt
  double whole = 0;   // and of its answer
  size_t begin = 0;
  size_t prompt_end = 0, whole_end = 0;
};

// Of a step's own time, what a token has to bear.
struct Share {
  double prompt_token = 0, decode = 0;
};

// How much of each prompt earlier requests could have left in a cache, in tokens.
std::vector<int64_t> CachedAtMost(const Load& load) {
  std::vector<int64_t> cached;
  cached.reserve(load.size());
  std::unordered_set<int64_t> seen;
  for (const bench::TraceRequest& request : load) {
    size_t hits = 0;
    while (hits < request.blocks.size() && seen.contains(request.blocks[hits])) ++hits;
    cached.push_back(std::min<int64_t>(static_cast<int64_t>(hits) * bench::kTraceBlockTokens,
                                       request.prompt_tokens - 1));
    seen.insert(request.blocks.begin(), request.blocks.end());
  }
  return cached;
}

class Bound {
  using Prices = std::array<double, kPrices>;

 public:
  Bound(const Scenario& scenario, const Share& share, double attainment, size_t grid)
      : scenario_(scenario), grid_(grid) {
    const Load& load = scenario.load;
    last_ = load.back().at;
    double end = last_;
    for (const auto& request : load) end = std::max(end, WholeDeadline(request));
    step_ = std::max(end, 1e-6) / static_cast<double>(grid_);
    const std::vector<int64_t> cached = CachedAtMost(load);
    int64_t refused = 0;
    for (size_t i = 0; i < load.size(); ++i) {
      if (int64_t{load[i].prompt_tokens} + load[i].output_tokens > scenario.profile.kv_tokens) {
        ++refused;
        continue;
      }
      works_.push_back(WorkOf(load[i], cached[i], share));
      total_ += works_.back().whole;
      largest_ = std::max(largest_, works_.back().whole);
    }
    double cap = largest_;
    for (double& c : caps_) {
      c = cap;
      cap /= kRatio;
    }
    // Those that must miss take of what may.
    misses_ = std::floor((1 - attainment) * static_cast<double>(load.size()) + 1e-6) -
              static_cast<double>(refused);
    misses_ = std::max(misses_, 0.0);
    std::stable_sort(works_.begin(), works_.end(),
                     [](const Work& a, const Work& b) { return a.begin > b.begin; });
  }

  double Seconds() const {
    double most = std::max(total_, static_cast<double>(scenario_.limits.min_replicas) * last_);
    const Prices prices = PricesOf();
    const Prices sums = BestPartitions(prices);
    for (size_t i = 0; i < kPrices; ++i) most = std::max(most, sums[i] - misses_ * prices[i]);
    return most;
  }

 private:
  double WholeDeadline(const bench::TraceRequest& request) const {
    return request.at + scenario_.objective.ttft +
           scenario_.objective.itl * static_cast<double>(request.output_tokens - 1);
  }
  // The first bound that is not before `time`.
  size_t EndOf(double time) const {
    return std::min(static_cast<size_t>(std::ceil(time / step_)), grid_);
  }

  Work WorkOf(const bench::TraceRequest& request, int64_t cached, const Share& share) const {
    const StepTimeCoefficients& times = scenario_.profile.times;
    const double prompt = request.prompt_tokens, known = static_cast<double>(cached);
    const double decodes = request.output_tokens - 1;
    Work work;
    work.prompt = (prompt - known) * (times.per_prefill_token + share.prompt_token) +
                  times.per_attended_token * (prompt * (prompt + 1) - known * (known + 1)) / 2 +
                  times.per_loaded_token * prompt;
    work.whole = work.prompt + decodes * (times.per_decode_sequence + share.decode) +
                 (times.per_attended_token + times.per_loaded_token) *
                     (decodes * prompt + decodes * (decodes + 1) / 2);
    // The last bound that is not after the arrival.
    work.begin = std::min(static_cast<size_t>(request.at / step_), grid_ - 1);
    work.prompt_end = EndOf(request.at + scenario_.objective.ttft);
    work.whole_end = EndOf(WholeDeadline(request));
    return work;
  }

  // From what no miss can save more than, down.
  Prices PricesOf() const {
    Prices prices;
    double price = largest_ * (1 + scenario_.start_up / step_);
    for (double& p : prices) {
      p = price;
      price /= kRatio * kRatio;
    }
    return prices;
  }

  // The cap of a request's work with which a miss saves no more than `price` where work counts
  // `factor` times.
  size_t CapFor(double price, double factor) const {
    const double cap = price / factor;
    size_t c = 0;
    while (c < kCaps && caps_[c] > cap * (1 + 1e-12)) ++c;
    return c;  // kCaps: none
  }

  // By price, the sum of the best partition: best[s] = max over e of bound(s, e) + best[e].
  Prices BestPartitions(const Prices& prices) const {
    // Of windows that begin at s: the work in them by their end, for each cap. The last is empty.
    std::array<std::vector<double>, kCaps + 1> within, added;
    for (auto& work : within) work.assign(grid_ + 1, 0);
    std::vector<Prices> best(grid_ + 1, Prices{});
    const auto delay = static_cast<size_t>(std::ceil(scenario_.start_up / step_));
    std::array<size_t, kPrices> plain_cap{};
    for (size_t i = 0; i < kPrices; ++i) plain_cap[i] = CapFor(prices[i], 1);
    std::vector<std::array<size_t, kPrices>> cap(grid_ + 1);  // by length
    std::vector<double> factor(grid_ + 1, 1);
    for (size_t length = 1; length <= grid_; ++length) {
      factor[length] = 1 + scenario_.start_up / (static_cast<double>(length) * step_);
      for (size_t i = 0; i < kPrices; ++i) cap[length][i] = CapFor(prices[i], factor[length]);
    }
    auto work = works_.begin();
    for (size_t s = grid_; s-- > 0;) {
      for (auto& sums : added) sums.assign(grid_ + 1, 0);
      for (; work != works_.end() && work->begin == s; ++work) {
        for (size_t c = 0; c < kCaps; ++c) {
          const double prompt = std::min(work->prompt, caps_[c]);
          added[c][work->prompt_end] += prompt;
          added[c][work->whole_end] += std::min(work->whole, caps_[c]) - prompt;
        }
      }
      for (size_t c = 0; c < kCaps; ++c) {
        double sum = 0;
        for (size_t e = s + 1; e <= grid_; ++e) within[c][e] += sum += added[c][e];
      }
      for (size_t e = s + 1; e <= grid_; ++e) {
        for (size_t i = 0; i < kPrices; ++i) {
          const double bound = std::max(LeastIn(s, e), within[plain_cap[i]][e]);
          best[s][i] = std::max(best[s][i], bound + best[e][i]);
          if (s < delay) continue;
          // [s - delay, e], in which those exist that compute in [s, e].
          const double started = within[cap[e - s][i]][e] * factor[e - s];
          best[s - delay][i] = std::max(best[s - delay][i], started + best[e][i]);
        }
      }
    }
    return best[0];
  }

  // Of minReplicas.
  double LeastIn(size_t s, size_t e) const {
    const double length =
        std::min(static_cast<double>(e) * step_, last_) - static_cast<double>(s) * step_;
    return static_cast<double>(scenario_.limits.min_replicas) * std::max(length, 0.0);
  }

  const Scenario& scenario_;
  const size_t grid_;  // bounds of windows
  double last_ = 0;
  double step_ = 0;
  double total_ = 0, largest_ = 0, misses_ = 0;
  std::array<double, kCaps> caps_{};  // from the largest work, falling
  std::vector<Work> works_;           // those that begin last first
};

}  // namespace

double ClairvoyantHours(const Scenario& scenario, double attainment, size_t grid) {
  const ReplicaProfile& profile = scenario.profile;
  const double by_token = profile.times.base / profile.max_batch_tokens;
  const Share over_tokens{by_token, by_token};
  const Share over_decodes{0, profile.times.base / profile.max_sequences};
  return std::max(Bound(scenario, over_tokens, attainment, grid).Seconds(),
                  Bound(scenario, over_decodes, attainment, grid).Seconds()) /
         3600;
}

}  // namespace quern::simulation
