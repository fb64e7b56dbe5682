// The names, types and labels of the operator's metrics, which dashboards and alerts rely on.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "operator/metrics/operator_metrics.h"

namespace quern::control {
namespace {

constexpr char kGolden[] = QUERN_TESTS_DIR "/contract/operator/metrics.golden";

// A registry in which every series has been touched once.
std::string Exposition() {
  OperatorMetrics metrics("0.0.0");
  metrics.Reconciled("", std::chrono::milliseconds(1));
  metrics.Reconciled("conflict", std::chrono::milliseconds(1));
  metrics.QueueDepth(1);
  metrics.QueueAdded();
  metrics.QueueRetried();
  metrics.QueueFull();
  metrics.QueueWaited(std::chrono::milliseconds(1));
  metrics.Decided("hold");
  metrics.Endpoint("ns", "name", 2, 1, 1, 3.5);
  metrics.Scraped(true, std::chrono::milliseconds(1));
  metrics.Applied("Deployment", "created");
  metrics.EventDropped("too_many");
  metrics.Leader(true);
  metrics.InformerObjects("pods", 1);
  metrics.ApiCall("list", "pods", 200, std::chrono::milliseconds(1));
  return metrics.Text();
}

// "name type {labels}" of every family, sorted.
std::string Shape(const std::string& exposition) {
  static const std::regex type_line(R"(^# TYPE (\S+) (\S+)$)");
  static const std::regex sample_line(R"(^(\w+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$)");
  static const std::regex label(R"((\w+)=")");
  std::map<std::string, std::string> types;
  std::map<std::string, std::set<std::string>> labels;
  std::istringstream lines(exposition);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, type_line)) types[match[1]] = match[2];
    if (line.empty() || line[0] == '#' || !std::regex_match(line, match, sample_line)) continue;
    const std::string inside = match[2];
    for (auto it = std::sregex_iterator(inside.begin(), inside.end(), label);
         it != std::sregex_iterator(); ++it) {
      if ((*it)[1] != "le") labels[match[1]].insert((*it)[1]);
    }
  }
  std::string shape;
  for (const auto& [name, type] : types) {
    std::string names;
    for (const std::string& one : labels[name]) names += (names.empty() ? "" : ",") + one;
    shape += name + " " + type + " {" + names + "}\n";
  }
  return shape;
}

TEST(OperatorMetricsContract, NamesTypesAndLabelsAreTheGoldenFiles) {
  const std::string shape = Shape(Exposition());
  if (std::getenv("QUERN_UPDATE_GOLDEN") != nullptr) std::ofstream(kGolden) << shape;
  std::ifstream file(kGolden);
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(shape, golden.str()) << "if that is meant, update it with QUERN_UPDATE_GOLDEN=1";
}

TEST(OperatorMetricsContract, PromtoolFindsNothingToMend) {
  FILE* promtool = popen("promtool check metrics >&2", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string text = Exposition();
  fwrite(text.data(), 1, text.size(), promtool);
  EXPECT_EQ(pclose(promtool), 0);
}

}  // namespace
}  // namespace quern::control
