#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/metrics/runtime_metrics.h"

namespace prometheus {
class Counter;
class Gauge;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace quern {

// The series by tenant of RuntimeMetrics, made when the first tenants are known. Thread-safe.
class TenantMetrics {
 public:
  // Registers the families, with the label `model`; `registry` outlives this.
  TenantMetrics(prometheus::Registry& registry, const std::string& model);

  void Set(const std::vector<std::string>& names);
  void SetFileValid(bool valid);
  // Of a tenant that is not there, nothing is counted.
  void CountFinished(const std::string& name, FinishedAs how, int32_t prompt_tokens,
                     int32_t generation_tokens);
  void CountRefused(const std::string& name);

 private:
  using CounterFamily = prometheus::Family<prometheus::Counter>;

  struct Series {
    prometheus::Counter* prompt_tokens = nullptr;
    prometheus::Counter* generation_tokens = nullptr;
    std::array<prometheus::Counter*, 6> requests{};  // as FinishedAs, and those refused
  };

  Series Add(const std::string& name);
  void Remove(const Series& series);

  CounterFamily& prompt_tokens_;
  CounterFamily& generation_tokens_;
  CounterFamily& requests_;
  prometheus::Gauge& file_valid_;
  std::mutex mutex_;
  std::map<std::string, Series> tenants_;
};

}  // namespace quern
