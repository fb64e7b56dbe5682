#include "runtime/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/bench/plot.h"

namespace quern::bench {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

RequestRecord OneDone() {
  RequestRecord record;
  record.index = 4;
  record.wanted_prompt = 8;
  record.wanted_output = 2;
  record.scheduled = 1;
  record.sent = 1.25;
  record.first_text = 1.5;
  record.last_text = record.end = 2;
  record.gaps = {0.5F};
  record.text_events = 2;
  record.usage = {8, 2, 0};
  record.outcome = Outcome::kDone;
  return record;
}

RunFacts Facts() {
  RunFacts facts;
  facts.url = "http://127.0.0.1:8000/v1";
  facts.server.model = "m";
  facts.client.cpu = "a CPU";
  facts.plan.arrivals = Arrivals::kConstant;
  facts.plan.rate = 4;
  facts.plan.duration = 2;
  facts.objective.ttft = 0.5;
  return facts;
}

TEST(Report, SaysWhatTheFiguresBelongTo) {
  const RequestRecord record = OneDone();
  const RequestRecord* records[] = {&record};
  const RunFacts facts = Facts();
  const Figures figures = FiguresOf(records, facts.objective);
  const json report = ReportJson(facts, figures);
  EXPECT_EQ(report["model"], "m");
  EXPECT_TRUE(report["precision"].is_null());  // nobody told: not guessed
  EXPECT_TRUE(report["precision_told_by"].is_null());
  EXPECT_TRUE(report["summary"]["server_cpu_seconds"].is_null());
  EXPECT_EQ(report["load"]["arrivals"], "constant");
  EXPECT_EQ(report["load"]["rate"], 4);
  EXPECT_TRUE(report["load"]["concurrency"].is_null());
  EXPECT_EQ(report["summary"]["done"], 1);
  EXPECT_EQ(report["summary"]["ttft_seconds"]["p50"], 0.5);
  EXPECT_EQ(report["summary"]["goodput"]["met"], 1);
  const std::string text = ReportText(facts, figures);
  EXPECT_THAT(text, HasSubstr("m, server not told, precision not told"));
  EXPECT_THAT(text, HasSubstr("hardware not told"));
  EXPECT_THAT(text, HasSubstr("server: processor time not told"));
  EXPECT_THAT(text, HasSubstr("open loop, 4 requests/s (constant)"));
  EXPECT_THAT(text, HasSubstr("sent late by 250.0 ms"));
  EXPECT_THAT(text, HasSubstr("100.0 % kept ttft=500ms"));
}

TEST(Report, WhatTheServerSaysOfItselfStandsWhereTheUserSaysNothing) {
  RunFacts facts = Facts();
  facts.server.parameters = 134'515'008;
  facts.server.max_model_len = 8192;
  facts.server.quantization = "Q4_1";
  facts.server.size_by_type = {{"Q4_1", 76}, {"Q8_0", 30}, {"F32", 1}};
  facts.server.kv_cache_dtype = "f16";
  facts.server.hardware = "a CPU; avx2, 2 threads";
  facts.server.cpu_metric = "quern_process_cpu_seconds_total";
  facts.server.cpu_seconds = 1.5;
  const std::string text = ReportText(facts, {});
  EXPECT_THAT(text, HasSubstr("precision Q4_1 (with Q8_0, F32), KV f16\n"));
  EXPECT_THAT(text, HasSubstr("server: 134.5 M parameters, context 8192, hardware a CPU; avx2"));
  EXPECT_THAT(text, HasSubstr("1.50 s of processor time (quern_process_cpu_seconds_total)"));
  json report = ReportJson(facts, {});
  EXPECT_EQ(report["precision"], "Q4_1 (with Q8_0, F32), KV f16");
  EXPECT_EQ(report["precision_told_by"], "server");
  EXPECT_EQ(report["hardware_told_by"], "server");
  EXPECT_EQ(report["server"]["size_by_type"], json({{"Q4_1", 76}, {"Q8_0", 30}, {"F32", 1}}));
  EXPECT_EQ(report["server"]["parameters"], 134'515'008);
  EXPECT_EQ(report["summary"]["server_cpu_seconds"], 1.5);
  facts.precision = "as I measured it";
  facts.hardware = "a laptop";
  report = ReportJson(facts, {});
  EXPECT_EQ(report["precision"], "as I measured it");
  EXPECT_EQ(report["precision_told_by"], "user");
  EXPECT_EQ(report["server"]["quantization"], "Q4_1");
  EXPECT_EQ(report["hardware"], "a laptop");
}

TEST(Report, OfARunWithoutAnswersHasNoLatencies) {
  RequestRecord record;
  record.outcome = Outcome::kFailed;
  record.error = "status 404";
  record.end = 1;
  const RequestRecord* records[] = {&record};
  const Figures figures = FiguresOf(records, {});
  const std::string text = ReportText(Facts(), figures);
  EXPECT_THAT(text, HasSubstr("1 x status 404"));
  EXPECT_THAT(text, Not(HasSubstr("TTFT")));
  EXPECT_TRUE(ReportJson(Facts(), figures)["summary"]["ttft_seconds"].is_null());
}

TEST(Report, ARequestIsOneLineOfJson) {
  RequestRecord record = OneDone();
  const json row = json::parse(RecordJson(record));
  EXPECT_EQ(row["index"], 4);
  EXPECT_EQ(row["outcome"], "done");
  EXPECT_EQ(row["gaps"], json::array({0.5}));
  EXPECT_EQ(row["output_tokens"], 2);
  record.usage = {};
  record.gaps.clear();
  record.error = "odd \x80 bytes";
  const json other = json::parse(RecordJson(record));
  EXPECT_FALSE(other.contains("output_tokens"));
  EXPECT_TRUE(other["gaps"].empty());
}

TEST(Plot, DrawsWithAnyRecordsAndEscapesTheTitle) {
  EXPECT_THAT(PlotSvg({}, "<m> & \x01"), HasSubstr("&lt;m> &amp; <"));
  RequestRecord record = OneDone(), single = OneDone();
  single.gaps.clear();
  single.text_events = 1;
  single.last_text = single.first_text;
  const RequestRecord* records[] = {&record, &single};
  const std::string svg = PlotSvg(records, "m");
  EXPECT_THAT(svg, HasSubstr("<polyline"));
  EXPECT_THAT(svg, HasSubstr("<circle"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

}  // namespace
}  // namespace quern::bench
