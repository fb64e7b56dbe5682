#include "runtime/bench/server_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quern::bench {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

ServerFacts FactsIn(const std::string& body, const std::string& model = "") {
  ServerFacts facts;
  facts.model = model;
  ReadModels(body, facts);
  return facts;
}

TEST(ServerFacts, OfQuernServesModelArePrecisionAndSize) {
  const ServerFacts facts = FactsIn(
      R"({"data": [{"id": "m", "owned_by": "quern", "max_model_len": 8192, "meta": {
          "n_params": 134515008, "quantization": "Q4_1", "kv_cache_dtype": "int8",
          "size_by_type": {"F32": 141, "Q4_1": 79000, "Q8_0": 30000}}}]})");
  EXPECT_EQ(facts.model, "m");
  EXPECT_EQ(facts.owned_by, "quern");
  EXPECT_EQ(facts.max_model_len, 8192);
  EXPECT_EQ(facts.parameters, 134515008);
  EXPECT_THAT(facts.size_by_type,
              ElementsAre(Pair("Q4_1", 79000), Pair("Q8_0", 30000), Pair("F32", 141)));
  EXPECT_EQ(facts.Precision(), "Q4_1 (with Q8_0, F32), KV int8");
}

TEST(ServerFacts, OfOthersIsWhatTheyTell) {
  const ServerFacts vllm =
      FactsIn(R"({"data": [{"id": "v", "max_model_len": 4096, "root": "v"}]})");
  EXPECT_EQ(vllm.max_model_len, 4096);
  EXPECT_EQ(vllm.Precision(), "");
  const ServerFacts llama_cpp =
      FactsIn(R"({"data": [{"id": "l", "meta": {"n_params": 7, "size": 4, "ftype": "Q4_K"}}]})");
  EXPECT_EQ(llama_cpp.parameters, 7);
  EXPECT_EQ(llama_cpp.Precision(), "Q4_K, KV not told");
  EXPECT_EQ(FactsIn(R"({"data": [{"id": "x", "meta": {"kv_cache_dtype": "f16"}}]})").Precision(),
            "weights not told, KV f16");
}

TEST(ServerFacts, AreOfTheModelThatIsAskedFor) {
  const std::string two =
      R"({"data": [{"id": "a", "owned_by": "x"}, {"id": "b", "owned_by": "y"}]})";
  EXPECT_EQ(FactsIn(two).model, "a");
  EXPECT_EQ(FactsIn(two, "b").owned_by, "y");
  EXPECT_EQ(FactsIn(two, "c").owned_by, "");
}

TEST(ServerFacts, OddAnswersTellNothing) {
  for (const char* odd :
       {"", "[]", "null", "{", R"({"data": 1})", R"({"data": [1, {"id": 2}, {"id": ""}]})",
        R"({"data": [{"id": "m", "meta": [], "max_model_len": "8"}]})",
        R"({"data": [{"id": "m", "max_model_len": -4, "meta": {"n_params": 1.5, "quantization": 4,
            "size_by_type": {"F32": "x"}}}]})"}) {
    const ServerFacts facts = FactsIn(odd);
    EXPECT_EQ(facts.max_model_len, 0) << odd;
    EXPECT_EQ(facts.parameters, 0);
    EXPECT_EQ(facts.Precision(), "");
    EXPECT_THAT(facts.size_by_type, IsEmpty());
  }
  const auto escape =
      FactsIn(R"({"data": [{"id": "m", "meta": {"quantization": "Q\u001b[31m"}}]})");
  EXPECT_EQ(escape.quantization, "Q [31m");
}

TEST(ProcessFacts, AreReadFromTheTextFormat) {
  const ProcessFacts facts = ReadProcessFacts(
      "# HELP process_cpu_seconds_total x\n# TYPE process_cpu_seconds_total counter\n"
      "process_cpu_seconds_total 3\n"
      "quern_compute_info{model=\"a \\\"b\\\" {c}\",cpu=\"A CPU\",compute=\"avx2, 2 threads\"} 1\n"
      "quern_process_cpu_seconds_total{model=\"a \\\"b\\\" {c}\"} 1.25e+01 1395066363000\n"
      "process_cpu_seconds_total 4");
  EXPECT_EQ(facts.cpu_metric, "quern_process_cpu_seconds_total");
  EXPECT_EQ(facts.cpu_seconds, 12.5);
  EXPECT_EQ(facts.hardware, "A CPU; avx2, 2 threads");
  EXPECT_EQ(ReadProcessFacts("process_cpu_seconds_total 3\n").cpu_seconds, 3);
}

TEST(ProcessFacts, WhatIsNoSampleIsPassedOver) {
  for (const char* odd :
       {"", "\n\n", "process_cpu_seconds_total", "process_cpu_seconds_total ",
        "process_cpu_seconds_total NaN", "process_cpu_seconds_total 3x",
        "process_cpu_seconds_total{a=\"b 3", "process_cpu_seconds_total{a} 3",
        "process_cpu_seconds_total{a=\"b\" 3", "other_process_cpu_seconds_total 3", "{} 3"}) {
    EXPECT_EQ(ReadProcessFacts(odd).cpu_metric, "") << odd;
  }
}

}  // namespace
}  // namespace quern::bench
