#include "operator/metrics/operator_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "operator/metrics/prometheus_text.h"

namespace quern::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(OperatorMetrics, AllNamesBeginWithQuernOperator) {
  OperatorMetrics metrics("1.2.3");
  metrics.Reconciled("", std::chrono::milliseconds(3));
  metrics.Decided("ScaleUp");
  metrics.ApiCall("get", "pods", 200, std::chrono::milliseconds(1));
  const auto samples = ParsePrometheusText(metrics.Text());
  ASSERT_TRUE(samples) << samples.error().message;
  EXPECT_GT(samples->size(), 20u);
  for (const MetricSample& sample : *samples)
    EXPECT_EQ(sample.name.rfind("quern_operator_", 0), 0u) << sample.name;
  EXPECT_THAT(metrics.Text(), HasSubstr("quern_operator_build_info{version=\"1.2.3\"} 1"));
}

TEST(OperatorMetrics, AnEndpointThatWentHasNoSeries) {
  OperatorMetrics metrics("v");
  metrics.Endpoint("demo", "smol", 3, 2, 1, 12.5);
  EXPECT_THAT(metrics.Text(), HasSubstr("quern_operator_endpoint_desired_replicas{endpoint="
                                        "\"smol\",endpoint_namespace=\"demo\"} 3"));
  EXPECT_THAT(metrics.Text(), HasSubstr("endpoint_namespace=\"demo\"} 12.5"));
  metrics.ForgetEndpoint("demo", "smol");
  metrics.ForgetEndpoint("demo", "smol");
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("smol")));
}

TEST(OperatorMetrics, MayBeUsedFromSeveralThreads) {
  OperatorMetrics metrics("v");
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int n = 0; n < 100; ++n) {
        metrics.Reconciled("", std::chrono::milliseconds(1));
        metrics.Endpoint("ns", "e" + std::to_string(n % 3), n, n, n, 0.5);
        if (n % 10 == 0) metrics.ForgetEndpoint("ns", "e1");
      }
    });
  }
  threads.clear();
  EXPECT_THAT(metrics.Text(), HasSubstr("quern_operator_reconcile_total{result=\"success\"} 400"));
}

}  // namespace
}  // namespace quern::control
