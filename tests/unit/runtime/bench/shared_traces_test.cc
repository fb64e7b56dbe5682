// The recorded loads that lie beside the checkout, every line of them, as a few lines of C++ read
// them.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "runtime/bench/trace.h"

namespace quern::bench {
namespace {

namespace fs = std::filesystem;

const fs::path kTraces = QUERN_TESTS_DIR "/../../shared/data/traces";

std::string TextOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// One of Azure's rows, of a trace that is over within a day: "2023-11-16 18:17:03.9799600,4808,10".
TraceRequest AzureRow(const std::string& line) {
  TraceRequest row;
  int hour = 0, minute = 0;
  double second = 0;
  EXPECT_EQ(std::sscanf(line.c_str(), "%*10s %d:%d:%lf,%d,%d", &hour, &minute, &second,
                        &row.prompt_tokens, &row.output_tokens),
            5)
      << line;
  row.at = hour * 3600 + minute * 60 + second;
  return row;
}

TraceRequest MooncakeRow(const std::string& line) {
  const auto object = nlohmann::json::parse(line);
  return {.at = object["timestamp"].get<double>() / 1000,
          .prompt_tokens = object["input_length"],
          .output_tokens = object["output_length"],
          .blocks = object["hash_ids"]};
}

TEST(SharedTraces, EveryRequestIsReadAsTheFileHasIt) {
  if (!fs::is_directory(kTraces)) {
    GTEST_SKIP() << kTraces << " is not there: the traces are no part of the repository";
  }
  int traces = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(kTraces)) {
    const bool csv = entry.path().extension() == ".csv";
    if (!csv && entry.path().extension() != ".jsonl") continue;
    ++traces;
    const std::string text = TextOf(entry.path());
    const auto trace = ParseTrace(text);
    ASSERT_TRUE(trace.ok()) << entry.path() << ": " << trace.error().message;
    std::istringstream lines(text);
    std::string line;
    if (csv) std::getline(lines, line);
    size_t i = 0;
    double start = 0;
    for (; std::getline(lines, line); ++i) {
      const TraceRequest row = csv ? AzureRow(line) : MooncakeRow(line);
      if (i == 0) start = row.at;
      ASSERT_LT(i, trace->size()) << entry.path();
      const TraceRequest& read = (*trace)[i];
      ASSERT_NEAR(read.at, row.at - start, 1e-5) << line;
      ASSERT_EQ(read.prompt_tokens, row.prompt_tokens) << line;
      ASSERT_EQ(read.output_tokens, row.output_tokens) << line;
      ASSERT_EQ(read.blocks, row.blocks) << line;
    }
    EXPECT_EQ(i, trace->size()) << entry.path();
    EXPECT_GT(i, 1000U) << entry.path();
  }
  EXPECT_GE(traces, 2);
}

}  // namespace
}  // namespace quern::bench
