#include <algorithm>
#include <cmath>

#include "operator/simulation/policy.h"

namespace quern::simulation {
namespace {

class Fixed : public Policy {
 public:
  explicit Fixed(int64_t replicas) : replicas_(replicas) {}
  double period() const override { return 3600; }
  int64_t Decide(const FleetView&) override { return replicas_; }
  int64_t initial() const override { return replicas_; }

 private:
  int64_t replicas_;
};

}  // namespace

std::unique_ptr<Policy> MakeFixed(int64_t replicas) { return std::make_unique<Fixed>(replicas); }

const std::vector<PolicyKind>& PolicyKinds() {
  static const std::vector<PolicyKind> kKinds = {
      {"quern", "targetTokensPerSecond"},
      {"knative", "concurrent requests per replica"},
      {"hpa-tokens", "tokens/s per replica"},
      {"hpa-queue", "waiting requests per replica"},
      {"keda", "waiting requests per replica"},
      {"mean-active", "active requests per replica"},
      {"fixed", "replicas"},
  };
  return kKinds;
}

std::unique_ptr<Policy> MakePolicy(std::string_view name, double target, const Limits& limits,
                                   const control::ScalingPolicy& spec) {
  if (name == "quern") return MakeQuern(target, limits, spec);
  if (name == "knative") return MakeKnative(target, limits);
  if (name == "hpa-tokens") return MakeHpaTokens(target, limits);
  if (name == "hpa-queue") return MakeHpaQueue(target, limits);
  if (name == "keda") return MakeKeda(target, limits);
  if (name == "mean-active") return MakeMeanActive(target, limits);
  if (name == "fixed") {
    return MakeFixed(std::clamp(static_cast<int64_t>(std::llround(target)), limits.min_replicas,
                                limits.max_replicas));
  }
  return nullptr;
}

}  // namespace quern::simulation
