#include <gtest/gtest.h>

#include <limits>

#include "runtime/server/embedding_job.h"
#include "runtime/server/request.h"

namespace quern::server {
namespace {

EmbeddingRequest Parsed(const std::string& members) {
  auto parsed = ParseEmbeddingRequest(R"({"model":"m",)" + members + "}");
  if (const auto* error = std::get_if<ApiError>(&parsed)) {
    ADD_FAILURE() << error->message;
    return {};
  }
  return std::get<EmbeddingRequest>(std::move(parsed));
}

ApiError Refused(const std::string& members) {
  auto parsed = ParseEmbeddingRequest(R"({"model":"m",)" + members + "}");
  if (const auto* error = std::get_if<ApiError>(&parsed)) return *error;
  ADD_FAILURE() << members << " was taken";
  return {};
}

TEST(EmbeddingRequest, InputIsTextOrTokensOrListsOfThem) {
  EXPECT_EQ(Parsed(R"("input":"a")").inputs.size(), 1u);
  EXPECT_EQ(Parsed(R"("input":["a","b"])").inputs.size(), 2u);
  EXPECT_EQ(std::get<std::vector<TokenId>>(Parsed(R"("input":[1,2,3])").inputs[0]).size(), 3u);
  EXPECT_EQ(Parsed(R"("input":[[1,2],[3]])").inputs.size(), 2u);
  EXPECT_FALSE(Parsed(R"("input":"a")").base64);
  EXPECT_TRUE(Parsed(R"("input":"a","encoding_format":"base64")").base64);
}

TEST(EmbeddingRequest, WhatIsWrongIsNamed) {
  EXPECT_EQ(Refused(R"("user":"u")").param, "input");
  EXPECT_EQ(Refused(R"("input":[])").param, "input");
  EXPECT_EQ(Refused(R"("input":["a",{}])").param, "input[1]");
  EXPECT_EQ(Refused(R"("input":"a","encoding_format":"int8")").param, "encoding_format");
  EXPECT_EQ(Refused(R"("input":"a","dimensions":0)").param, "dimensions");
  EXPECT_EQ(Refused(R"("input":"a","normalize":false)").code, "unsupported_parameter");
  EXPECT_EQ(Refused(R"("input":"a","max_tokens":3)").code, "unknown_parameter");
  std::string many = R"("input":[)";
  for (size_t i = 0; i < kMaxEmbeddingInputs; ++i) many += R"("a",)";
  EXPECT_NE(Refused(many + R"("a"])").message.find("at most 2048"), std::string::npos);
}

TEST(ScaleToOne, MakesLengthOneOfAllThatIsFinite) {
  const auto scaled = [](std::vector<float> values) {
    EXPECT_TRUE(ScaleToOne(values));
    return values;
  };
  EXPECT_EQ(scaled({3, 4}), (std::vector<float>{0.6f, 0.8f}));
  EXPECT_EQ(scaled({0, -2, 0}), (std::vector<float>{0, -1, 0}));
  EXPECT_EQ(scaled({0, 0}), (std::vector<float>{0, 0}));
  std::vector<float> bad = {1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_FALSE(ScaleToOne(bad));
  bad = {1, std::numeric_limits<float>::infinity()};
  EXPECT_FALSE(ScaleToOne(bad));
}

TEST(EmbeddingJson, IsNumbersOrTheirBytes) {
  EXPECT_EQ(EmbeddingJson({0.6f, 0.8f}, false), "[0.6,0.8]");
  EXPECT_EQ(EmbeddingJson({0, 1}, true), "\"AAAAAAAAgD8=\"");  // 00000000 0000803F
}

}  // namespace
}  // namespace quern::server
