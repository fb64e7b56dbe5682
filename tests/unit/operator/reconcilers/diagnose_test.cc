#include "operator/reconcilers/diagnose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::control {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Pod(const char* container_status) {
  return {{"metadata", {{"name", "a-1"}}},
          {"status", {{"containerStatuses", json::array({json::parse(container_status)})}}}};
}

TEST(LastWords, AreTheLastLineThatSaysSomething) {
  EXPECT_EQ(LastWords("first\nmodel.gguf: truncated at byte 17\n\n  \n"),
            "model.gguf: truncated at byte 17");
  EXPECT_EQ(LastWords("2026-01-02T03:04:05.678Z error no such file"), "no such file");
  EXPECT_EQ(
      LastWords(
          R"({"time":"2026-01-02T03:04:05.678Z","level":"error","message":"a \"b\": no such file"})"
          "\n"),
      "a \"b\": no such file");
  EXPECT_EQ(LastWords("quern-serve: error: no such file"), "no such file");
  EXPECT_EQ(LastWords("{not json"), "{not json");
  EXPECT_EQ(LastWords("2026-01-02T03:04:05.678Z warn low"), "warn low");
  EXPECT_EQ(LastWords(""), "");
  EXPECT_EQ(LastWords("\n\n"), "");
  EXPECT_EQ(LastWords("one line"), "one line");
  EXPECT_EQ(LastWords(std::string(5000, 'x')).size(), 1000u);
}

TEST(DiagnosePod, GivesTheRuntimesOwnWordsForAModelThatCannotBeLoaded) {
  const auto problem = DiagnosePod(Pod(R"({"name": "quern-serve", "ready": false, "restartCount": 3,
      "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
      "lastState": {"terminated": {"exitCode": 2, "message": "x\n/models/a.gguf: no such file\n"}}})"));
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->reason, "ModelNotLoaded");
  EXPECT_EQ(problem->message, "pod a-1: quern-serve: /models/a.gguf: no such file");
}

TEST(DiagnosePod, NamesTheMendForMemory) {
  const auto problem = DiagnosePod(Pod(R"({"name": "quern-serve", "ready": false,
      "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}})"));
  EXPECT_EQ(problem->reason, "OutOfMemory");
  EXPECT_THAT(problem->message, HasSubstr("resources.limits.memory"));
}

// What containerd says when NVIDIA's container runtime refuses the node's driver.
TEST(DiagnosePod, NamesTheDriverThatIsTooOldForTheImage) {
  const auto problem = DiagnosePod(Pod(R"({"name": "quern-serve", "ready": false, "restartCount": 2,
      "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
      "lastState": {"terminated": {"exitCode": 128, "reason": "StartError", "message":
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to a newer version, or use an earlier cuda container: unknown"}}})"));
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->reason, "ContainerNotStarted");
  EXPECT_EQ(problem->message,
            "pod a-1: StartError: nvidia-container-cli: requirement error: unsatisfied condition: "
            "cuda>=13.0, please update your driver to a newer version, or use an earlier cuda "
            "container: unknown; the node's NVIDIA driver is too old: quern-serve with CUDA needs "
            "580 or later");
}

TEST(DiagnosePod, SaysWhyTheContainerRuntimeCouldNotStartIt) {
  const auto problem = DiagnosePod(Pod(R"({"name": "quern-serve", "ready": false,
      "state": {"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec: no such file"}}})"));
  EXPECT_EQ(problem->reason, "ContainerNotStarted");
  EXPECT_EQ(problem->message, "pod a-1: StartError: exec: no such file");
}

TEST(DiagnosePod, HasNothingAgainstPodsThatAreReadyLoadingDrainedOrGoing) {
  EXPECT_FALSE(DiagnosePod(Pod(R"({"name": "quern-serve", "ready": true, "restartCount": 3,
      "lastState": {"terminated": {"exitCode": 1}}})")));
  EXPECT_FALSE(
      DiagnosePod(Pod(R"({"name": "quern-serve", "ready": false, "state": {"running": {}}})")));
  EXPECT_FALSE(DiagnosePod(
      Pod(R"({"name": "quern-serve", "ready": false, "state": {"terminated": {"exitCode": 0}}})")));
  json going =
      Pod(R"({"name": "quern-serve", "ready": false, "state": {"terminated": {"exitCode": 1}}})");
  going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  EXPECT_FALSE(DiagnosePod(going));
}

TEST(DiagnosePod, ReadsAnyShape) {
  for (const char* text :
       {"null", "3", "[]", "{}", R"({"status": []})",
        R"({"status": {"containerStatuses": [3, {}]}})",
        R"({"status": {"conditions": [{"type": "PodScheduled", "status": "False"}, 7]}})"}) {
    const json any = json::parse(text);
    EXPECT_NO_THROW(DiagnosePod(any)) << text;
    EXPECT_NO_THROW(Diagnose({any}, {any})) << text;
  }
}

TEST(Diagnose, PutsTheGravestFirstAndBoundsTheList) {
  const json crashed =
      Pod(R"({"name": "quern-serve", "ready": false, "state": {"terminated": {"exitCode": 1}}})");
  const json missing =
      Pod(R"({"name": "quern-serve", "ready": false, "state": {"terminated": {"exitCode": 2}}})");
  const auto problems = Diagnose({crashed, crashed, crashed, crashed, crashed, missing}, {});
  ASSERT_EQ(problems.size(), kMaxProblems);
  EXPECT_EQ(problems[0].reason, "ModelNotLoaded");
  EXPECT_EQ(problems[1].reason, "RuntimeCrashed");
}

TEST(Diagnose, TellsWhyPodsCannotBeMade) {
  const json deployment = {
      {"metadata", {{"name", "a-cpu"}}},
      {"status",
       {{"conditions", json::array({{{"type", "ReplicaFailure"},
                                     {"status", "True"},
                                     {"message", "exceeded quota: small"}}})}}}};
  const auto problems = Diagnose({}, {deployment});
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].reason, "PodsRefused");
  EXPECT_THAT(problems[0].message, HasSubstr("exceeded quota: small"));
}

}  // namespace
}  // namespace quern::control
