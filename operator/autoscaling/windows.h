#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>

namespace quern::control {

// Time of the autoscaler in milliseconds. Any origin, but one for all; passed in, never read.
using Millis = int64_t;

// The counters of a pod that scaling looks at, as its /metrics shows them.
struct PodCounters {
  enum Field {
    kAdmittedRequests,      // quern_admitted_requests_total
    kAdmittedPromptTokens,  // quern_admitted_prompt_tokens_total
    kRejectedRequests,      // quern_requests_rejected_total, for want of capacity
    kGeneratedTokens,       // quern_generation_tokens_total
    kPrefilledTokens,       // quern_prompt_tokens_total
    kFinishedRequests,      // quern_requests_finished_total, all reasons
    kFieldCount,
  };
  std::array<double, kFieldCount> values{};

  double& operator[](Field field) { return values[field]; }
  double operator[](Field field) const { return values[field]; }
};

// What one scrape of one pod showed.
struct PodSample {
  Millis time = 0;
  PodCounters counters;
  double running_requests = 0;
  double waiting_requests = 0;
  double kv_cache_usage = 0;  // 0..1
};

// How much the counters of all pods together rose within a window that ends now.
struct WindowIncrease {
  PodCounters increase;
  double covered_seconds = 0;  // how much of the window samples cover; the longest pod's
};

// What every pod of an endpoint served, kept for as long as the longest window. Between two
// samples a counter is taken to rise evenly, so a pod that missed a few scrapes makes no burst. A
// counter that falls has been reset by a restart and counts from 0. A pod that goes keeps what it
// served in the windows until they have moved on. Bounded: kMaxSamplesPerPod samples, kMaxPods
// pods. Where a window holds more samples (24 minutes of one every 2 s), those older than the
// kNewestSamples are thinned out evenly: the whole window stays covered and sums stay exact, only
// the window's far edge is seen less sharply (5 s in an hour). Not thread-safe.
class PodWindows {
 public:
  static constexpr size_t kMaxSamplesPerPod = 720;
  static constexpr size_t kNewestSamples = 60;
  static constexpr size_t kMaxPods = 2000;

  // `keep`: how long samples stay; at least the longest window asked for.
  explicit PodWindows(Millis keep) : keep_(keep) {}

  // Adds a sample. `started` is when the pod's container started: a pod first seen that started
  // after this object was made counts from 0, not from what it shows first. Samples that are not
  // newer than the pod's last are ignored.
  void Add(const std::string& pod, Millis started, const PodSample& sample);

  // Drops what is older than `keep`; pods without samples are forgotten.
  void Trim(Millis now);

  WindowIncrease Increase(Millis now, Millis window) const;

  // The pod's last sample, or nullptr.
  const PodSample* Last(const std::string& pod) const;

  size_t pods() const { return pods_.size(); }
  size_t samples(const std::string& pod) const;
  void set_keep(Millis keep) { keep_ = keep; }

 private:
  // How much the counters had risen in all, by then: no reset in it, so any may be left out.
  struct Point {
    Millis time = 0;
    PodCounters total;
  };
  struct Series {
    PodSample last;
    std::deque<Point> points;  // never empty; the last is at last.time
  };
  static void Thin(std::deque<Point>& points);

  Millis keep_;
  Millis first_ = -1;  // the first sample of all
  std::map<std::string, Series> pods_;
};

}  // namespace quern::control
