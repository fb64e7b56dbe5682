#include "operator/metrics/prometheus_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace quern::control {
namespace {

std::string Wrong(std::string_view text, const MetricLimits& limits = {}) {
  const auto samples = ParsePrometheusText(text, limits);
  return samples ? "accepted" : samples.error().message;
}

TEST(PrometheusText, ReadsAPageAsTheClientLibrariesWriteIt) {
  const auto samples = ParsePrometheusText(
      "# HELP http_requests_total The total number of HTTP requests.\n"
      "# TYPE http_requests_total counter\n"
      "http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n"
      "http_requests_total{method=\"post\",code=\"400\",}    3 1395066363000\r\n"
      "\n"
      "metric_without_timestamp_and_labels 12.47\n"
      "  something_weird{problem=\"division by zero\"} +Inf -3982045\n"
      "rpc_bucket{le=\"0.05\"} 2.4e-3 # {trace_id=\"x\"} 0.04\n"
      "a_nan NaN\n"
      "# EOF\n");
  ASSERT_TRUE(samples) << samples.error().message;
  ASSERT_EQ(samples->size(), 6u);
  EXPECT_EQ((*samples)[0].name, "http_requests_total");
  EXPECT_EQ((*samples)[0].Label("code"), "200");
  EXPECT_EQ((*samples)[0].Label("nothing"), "");
  EXPECT_EQ((*samples)[0].value, 1027);
  EXPECT_EQ((*samples)[1].value, 3);
  EXPECT_EQ((*samples)[2].value, 12.47);
  EXPECT_TRUE(std::isinf((*samples)[3].value));
  EXPECT_EQ((*samples)[4].value, 2.4e-3);
  EXPECT_TRUE(std::isnan((*samples)[5].value));
}

TEST(PrometheusText, UnescapesLabels) {
  const auto samples = ParsePrometheusText(
      R"(a{path="C:\\DIR\\FILE.TXT",error="Cannot find:\n\"FILE\"",odd="\x"} 1)");
  ASSERT_TRUE(samples) << samples.error().message;
  EXPECT_EQ((*samples)[0].Label("path"), "C:\\DIR\\FILE.TXT");
  EXPECT_EQ((*samples)[0].Label("error"), "Cannot find:\n\"FILE\"");
  EXPECT_EQ((*samples)[0].Label("odd"), "\\x");
}

TEST(PrometheusText, NamesTheLineAndWhatIsWrong) {
  using ::testing::HasSubstr;
  EXPECT_THAT(Wrong("a 1\n1b 2\n"), HasSubstr("line 2: a metric's name must come first"));
  EXPECT_THAT(Wrong("a{b=\"c\" 1"), HasSubstr("'}' or ',' is missing"));
  EXPECT_THAT(Wrong("a{b=\"c"), HasSubstr("does not end"));
  EXPECT_THAT(Wrong("a{b=\"c\\"), HasSubstr("does not end"));
  EXPECT_THAT(Wrong("a{b=c} 1"), HasSubstr("not quoted"));
  EXPECT_THAT(Wrong("a{b} 1"), HasSubstr("'=' is missing"));
  EXPECT_THAT(Wrong("a{=\"\"} 1"), HasSubstr("label's name is missing"));
  EXPECT_THAT(Wrong("a"), HasSubstr("value is no number"));
  EXPECT_THAT(Wrong("a 0x10"), HasSubstr("value is no number"));
  EXPECT_THAT(Wrong("a 1 x"), HasSubstr("timestamp is no number"));
  EXPECT_THAT(Wrong("a 1 2 3"), HasSubstr("follows the timestamp"));
  EXPECT_THAT(Wrong("<html>"), HasSubstr("line 1"));
}

TEST(PrometheusText, RefusesMoreThanItsLimits) {
  MetricLimits limits;
  limits.samples = 2;
  limits.labels = 1;
  limits.line_bytes = 30;
  EXPECT_THAT(Wrong("a 1\na 2\na 3\n", limits), testing::HasSubstr("line 3: more than 2 samples"));
  EXPECT_THAT(Wrong("a{b=\"1\",c=\"2\"} 1", limits), testing::HasSubstr("too many labels"));
  EXPECT_THAT(Wrong(std::string(31, 'a') + " 1", limits),
              testing::HasSubstr("longer than 30 bytes"));
}

TEST(PrometheusText, ShowsOneSampleAfterTheOther) {
  std::string seen;
  const Status read =
      VisitPrometheusText("a{x=\"1\",y=\"2\"} 1\nb 2\n1c\n", {}, [&seen](const MetricSample& s) {
        seen += fmt::format("{}{}={} ", s.name, s.labels.size(), s.value);
      });
  EXPECT_EQ(seen, "a2=1 b0=2 ");
  EXPECT_FALSE(read.ok());
}

TEST(PrometheusText, NothingIsAPageToo) {
  EXPECT_TRUE(ParsePrometheusText("")->empty());
  EXPECT_TRUE(ParsePrometheusText("\n# only a comment")->empty());
}

}  // namespace
}  // namespace quern::control
