#include "runtime/server/observers.h"

#include <gtest/gtest.h>

namespace quern::server {
namespace {

TEST(MetricsEngineObserver, TellsOfARequestWhatTheEngineSaid) {
  RuntimeMetrics metrics("m");
  MetricsEngineObserver observer(metrics);
  observer.OnFinished({.reason = FinishReason::kError,
                       .since_submit = Seconds(9),
                       .prompt_tokens = 30,
                       .completion_tokens = 5,
                       .cached_tokens = 16,
                       .computed_tokens = 14,
                       .max_tokens = 40,
                       .prefill = Seconds(2),
                       .decode = Seconds(6),
                       .corrupted = true});
  const std::string text = metrics.Render({});
  for (const char* sample :
       {R"(requests_finished_total{model="m",reason="error"} 1)",
        R"(requests_corrupted_total{model="m"} 1)", R"(request_duration_seconds_sum{model="m"} 9)",
        R"(request_prefill_seconds_sum{model="m"} 2)", R"(request_decode_seconds_sum{model="m"} 6)",
        R"(request_time_per_output_token_seconds_sum{model="m"} 1.5)",
        R"(request_prefill_computed_tokens_sum{model="m"} 14)",
        R"(request_params_max_tokens_sum{model="m"} 40)"}) {
    EXPECT_NE(text.find("\nquern_" + std::string(sample) + "\n"), std::string::npos) << sample;
  }
}

}  // namespace
}  // namespace quern::server
