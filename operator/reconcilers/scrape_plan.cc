#include "operator/reconcilers/scrape_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace quern::control {
namespace {

constexpr double kSlowShare = 0.25;  // of the budget, for the slow pods
constexpr double kCostDecay = 0.9;   // a scrape; from 1.5 s to kSlowSeconds in 20 quick ones

struct Turn {
  size_t index;
  std::tuple<double, Millis, Millis> order;
};

// Takes turns in order until the budget is used up; at least one. Returns what is left of it.
double Take(std::vector<Turn>& turns, const std::vector<ScrapeCandidate>& candidates, double budget,
            std::vector<size_t>& out) {
  std::stable_sort(turns.begin(), turns.end(),
                   [](const Turn& a, const Turn& b) { return a.order < b.order; });
  for (const Turn& turn : turns) {
    if (budget <= 0) break;
    budget -= candidates[turn.index].cost;
    out.push_back(turn.index);
  }
  return budget;
}

}  // namespace

std::vector<size_t> PlanScrapes(const std::vector<ScrapeCandidate>& candidates, double budget) {
  std::vector<size_t> by_age(candidates.size());
  for (size_t i = 0; i < by_age.size(); ++i) by_age[i] = i;
  std::stable_sort(by_age.begin(), by_age.end(),
                   [&](size_t a, size_t b) { return candidates[a].asked < candidates[b].asked; });
  std::vector<Turn> quick, slow;
  std::map<size_t, double> spent;  // by endpoint: on its quick pods so far
  std::map<size_t, double> rank;   // by endpoint: its slow pods so far
  for (const size_t i : by_age) {
    const ScrapeCandidate& c = candidates[i];
    if (c.cost > kSlowSeconds) {
      slow.push_back({i, {rank[c.endpoint]++, c.endpoint_asked, c.asked}});
    } else {
      spent[c.endpoint] += c.cost;
      quick.push_back({i, {spent[c.endpoint], c.asked, 0}});
    }
  }
  std::vector<size_t> out;
  const double reserved = budget * kSlowShare;
  const double left = Take(quick, candidates, budget - reserved, out);
  Take(slow, candidates, std::max(left, 0.0) + reserved, out);
  return out;
}

double ExpectedCost(double before, double took) { return std::max(took, before * kCostDecay); }

}  // namespace quern::control
