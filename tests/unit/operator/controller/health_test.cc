#include "operator/controller/health.h"

#include <gmock/gmock.h>

namespace quern::control {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

TEST(Health, ASilentInformerIsNotAlive) {
  EXPECT_TRUE(Liveness({{"pods", true, seconds(599), 3, ""}}).ok);
  const HealthReport report =
      Liveness({{"pods", true, seconds(5), 3, ""}, {"nodes", true, seconds(601), 3, "reset"}});
  EXPECT_FALSE(report.ok);
  EXPECT_THAT(report.message, HasSubstr("informer pods: ok"));
  EXPECT_THAT(report.message, HasSubstr("informer nodes: nothing heard for 601 s"));
}

TEST(Health, ReadyOnceAllIsListedWithOrWithoutTheLead) {
  const HealthReport waiting =
      Readiness({{"pods", false, seconds(1), 0, "forbidden"}}, false, "other");
  EXPECT_FALSE(waiting.ok);
  EXPECT_THAT(waiting.message, HasSubstr("informer pods: not listed yet: forbidden"));
  const HealthReport ready = Readiness({{"pods", true, seconds(1), 7, ""}}, false, "other");
  EXPECT_TRUE(ready.ok);
  EXPECT_THAT(ready.message, HasSubstr("leader: other"));
  EXPECT_THAT(Readiness({}, true, "me").message, HasSubstr("leader: this one"));
}

}  // namespace
}  // namespace quern::control
