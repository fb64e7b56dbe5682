#include "operator/simulation/calibrate.h"

#include <algorithm>
#include <cmath>

#include "runtime/bench/random.h"

namespace quern::simulation {
namespace {

constexpr size_t kRequests = 2000;
constexpr double kShare = 0.95;
constexpr int kHalvings = 18;

}  // namespace

double TokensPerSecondWithin(const Scenario& scenario) {
  Scenario one = scenario;
  one.limits = {1, 1};
  one.load.resize(std::min(one.load.size(), kRequests));
  double tokens = 0, work = 0;
  for (const bench::TraceRequest& request : one.load) {
    tokens += request.prompt_tokens + request.output_tokens;
    const double prompt = request.prompt_tokens;
    work += one.profile.times.per_prefill_token * prompt +
            one.profile.times.per_decode_sequence * request.output_tokens +
            one.profile.times.base * request.output_tokens;
  }
  const auto count = static_cast<double>(one.load.size());
  const auto attained = [&](double rate) {
    bench::Random random(scenario.seed);
    double at = 0;
    for (bench::TraceRequest& request : one.load) {
      at -= std::log(random.Unit()) / rate;
      request.at = at;
    }
    const auto policy = MakeFixed(1);
    return Simulate(one, *policy).attainment;
  };
  // Alone, a request takes about work / count.
  double low = 0.01 * count / work;
  double high = 1e4 * low;
  const double enough = kShare * attained(low);
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = std::sqrt(low * high);
    (attained(middle) >= enough ? low : high) = middle;
  }
  return low * tokens / count;
}

}  // namespace quern::simulation
