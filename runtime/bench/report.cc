#include "runtime/bench/report.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace quern::bench {
namespace {

using nlohmann::json;

constexpr const char* kNotTold = "not told";

template <typename... Args>
void Line(std::string& text, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
  text += '\n';
}

const std::string& Or(const std::string& text, const std::string& otherwise) {
  return text.empty() ? otherwise : text;
}

json OrNull(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }
json OrNull(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }
json OrNull(int64_t count) { return count > 0 ? json(count) : json(nullptr); }

json SizesJson(const ServerFacts& server) {
  if (server.size_by_type.empty()) return nullptr;
  json sizes = json::object();
  for (const auto& [type, bytes] : server.size_by_type) sizes[type] = bytes;
  return sizes;
}

json ToJson(const Distribution& d) {
  if (d.count == 0) return nullptr;
  return {{"count", d.count}, {"mean", d.mean}, {"p50", d.p50}, {"p90", d.p90},
          {"p95", d.p95},     {"p99", d.p99},   {"max", d.max}};
}

// What the user says of the server, else what it says itself.
std::string Precision(const RunFacts& facts) {
  return facts.precision.empty() ? facts.server.Precision() : facts.precision;
}
const std::string& Hardware(const RunFacts& facts) {
  return Or(facts.hardware, facts.server.hardware);
}

// Who says so; null: nobody does.
json ToldBy(const std::string& users, const std::string& servers) {
  if (!users.empty()) return "user";
  return servers.empty() ? json(nullptr) : json("server");
}

std::string Load(const RunFacts& facts) {
  switch (facts.plan.arrivals) {
    case Arrivals::kClosed:
      return fmt::format("closed loop, {} at once", facts.concurrency);
    case Arrivals::kTrace:
      return fmt::format("open loop, the trace's times{}",
                         facts.plan.speedup == 1
                             ? std::string()
                             : fmt::format(" {} times as fast", facts.plan.speedup));
    default:
      return fmt::format("open loop, {} requests/s ({})", facts.plan.rate,
                         ArrivalsName(facts.plan.arrivals));
  }
}

std::string Lengths(const RunFacts& facts) {
  if (!facts.trace.empty()) {
    return fmt::format(
        "lengths of {}{}", facts.trace,
        facts.cut_requests > 0 ? fmt::format(" ({} cut)", facts.cut_requests) : std::string());
  }
  return fmt::format("prompts of {} tokens, answers of {}", facts.plan.prompt.Show(),
                     facts.plan.output.Show());
}

void AddHead(std::string& text, const RunFacts& facts) {
  const ServerFacts& server = facts.server;
  const std::string version = Or(server.fingerprint, Or(server.version, server.header));
  Line(text, "{}{}: {}, server {}, precision {}", facts.url, EndpointPath(facts.body.endpoint),
       server.model, Or(version, kNotTold), Or(Precision(facts), kNotTold));
  Line(text, "server: {}{}hardware {}",
       server.parameters > 0 ? fmt::format("{:.4g} M parameters, ", server.parameters / 1e6) : "",
       server.max_model_len > 0 ? fmt::format("context {}, ", server.max_model_len) : "",
       Or(Hardware(facts), kNotTold));
  if (!facts.note.empty()) Line(text, "note: {}", facts.note);
  Line(text, "{}; {}; seed {}, of prompts {}{}", Load(facts), Lengths(facts), facts.plan.seed,
       facts.prompt_seed,
       facts.shared_prefix > 0 ? fmt::format("; {} tokens shared", facts.shared_prefix)
                               : std::string());
  Line(text, "client: {}, {} processors; quern-bench {}; {}{}\n", facts.client.cpu,
       facts.client.processors, facts.client.version, facts.client.time,
       facts.interrupted ? "; INTERRUPTED" : "");
}

void AddCounts(std::string& text, const RunFacts& facts, const Figures& figures) {
  Line(text, "{} requests done in {:.2f} s, {} failed, {} cancelled; {:.1f} in flight on average",
       figures.done, figures.seconds, figures.failed, figures.cancelled, figures.mean_in_flight);
  for (const auto& [kind, count] : figures.errors) Line(text, "  {} x {}", count, kind);
  if (figures.ended_early > 0) {
    Line(text, "  {} answers ended before the length that was asked for", figures.ended_early);
  }
  if (figures.usage_missing > 0) {
    Line(text, "  {} answers without usage: their tokens are counted by events",
         figures.usage_missing);
  }
  if (figures.done > 0) {
    const auto done = static_cast<double>(figures.done);
    Line(text, "prompt tokens {} ({:.1f} a request, {:.1f} wanted{}; {} from the server's cache)",
         figures.prompt_tokens, static_cast<double>(figures.prompt_tokens) / done,
         static_cast<double>(figures.wanted_prompt_tokens) / done,
         facts.exact_prompts ? "" : ", approximately", figures.cached_tokens);
    Line(text, "output tokens {} ({:.1f} a request, {:.2f} an event)", figures.output_tokens,
         static_cast<double>(figures.output_tokens) / done, figures.tokens_per_event);
  }
  Line(text, "server: {}",
       facts.server.cpu_seconds ? fmt::format("{:.2f} s of processor time ({})",
                                              *facts.server.cpu_seconds, facts.server.cpu_metric)
                                : std::string("processor time not told"));
  Line(text, "client: {:.2f} s of processor time{}", facts.cpu_seconds,
       facts.plan.arrivals == Arrivals::kClosed
           ? std::string()
           : fmt::format("; requests sent late by {:.1f} ms at p50, {:.1f} at p99, {:.1f} at most",
                         figures.lateness.p50 * 1e3, figures.lateness.p99 * 1e3,
                         figures.lateness.max * 1e3));
}

void AddDistributions(std::string& text, const Figures& figures) {
  Line(text, "\n{:>8}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "mean", "p50", "p90", "p95",
       "p99", "max");
  const auto row = [&text](const char* name, const Distribution& d) {
    if (d.count == 0) return Line(text, "{:>8}  {:>9}", name, "none");
    Line(text, "{:>8}  {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}", name, d.mean * 1e3,
         d.p50 * 1e3, d.p90 * 1e3, d.p95 * 1e3, d.p99 * 1e3, d.max * 1e3);
  };
  row("TTFT", figures.ttft);
  row("TPOT", figures.tpot);
  row("ITL", figures.itl);
  row("E2E", figures.e2e);
  if (!figures.gaps_are_whole) Line(text, "ITL is of the earlier requests: too many to keep all");
}

std::string ShowObjective(const Objective& objective) {
  std::string text;
  const auto add = [&text](const char* name, const std::optional<double>& bound) {
    if (bound) text += fmt::format("{}{}={:g}ms", text.empty() ? "" : ", ", name, *bound * 1e3);
  };
  add("ttft", objective.ttft);
  add("tpot", objective.tpot);
  add("itl", objective.itl);
  add("e2e", objective.e2e);
  return text;
}

json MissedJson(const Goodput& goodput) {
  return {{"ttft", goodput.missed_ttft},
          {"tpot", goodput.missed_tpot},
          {"itl", goodput.missed_itl},
          {"e2e", goodput.missed_e2e}};
}

json GoodputJson(const Objective& objective, const Goodput& goodput) {
  if (objective.empty()) return nullptr;
  return {{"objective_seconds",
           {{"ttft", OrNull(objective.ttft)},
            {"tpot", OrNull(objective.tpot)},
            {"itl", OrNull(objective.itl)},
            {"e2e", OrNull(objective.e2e)}}},
          {"met", goodput.met},
          {"share", goodput.share},
          {"requests_per_second", goodput.requests_per_second},
          {"missed", MissedJson(goodput)}};
}

json LoadJson(const RunFacts& facts) {
  const PlanOptions& plan = facts.plan;
  const bool closed = plan.arrivals == Arrivals::kClosed, traced = !facts.trace.empty();
  const bool by_rate = plan.arrivals == Arrivals::kConstant || plan.arrivals == Arrivals::kPoisson;
  json load = {{"arrivals", ArrivalsName(plan.arrivals)},
               {"concurrency", closed ? json(facts.concurrency) : json(nullptr)},
               {"rate", by_rate ? json(plan.rate) : json(nullptr)},
               {"max_in_flight", closed ? json(nullptr) : json(facts.max_in_flight)},
               {"requests", OrNull(plan.max_requests)},
               {"duration_seconds", plan.duration > 0 ? json(plan.duration) : json(nullptr)},
               {"trace", OrNull(facts.trace)},
               {"prompt_tokens", traced ? json(nullptr) : json(plan.prompt.Show())},
               {"output_tokens", traced ? json(nullptr) : json(plan.output.Show())},
               {"shared_prefix", facts.shared_prefix},
               {"exact_prompts", facts.exact_prompts},
               {"warm_up_requests", facts.warm_up_requests},
               {"seed", plan.seed},
               {"prompt_seed", facts.prompt_seed}};
  if (traced) {
    load["speedup"] = plan.speedup;
    load["max_prompt_tokens"] = plan.max_prompt_tokens;
    load["max_output_tokens"] = plan.max_output_tokens;
    load["cut_requests"] = facts.cut_requests;
  }
  return load;
}

json FactsJson(const RunFacts& facts) {
  const ServerFacts& server = facts.server;
  const ClientFacts& client = facts.client;
  return {{"url", facts.url},
          {"endpoint", EndpointPath(facts.body.endpoint)},
          {"model", server.model},
          {"precision", OrNull(Precision(facts))},
          {"precision_told_by", ToldBy(facts.precision, server.Precision())},
          {"hardware", OrNull(Hardware(facts))},
          {"hardware_told_by", ToldBy(facts.hardware, server.hardware)},
          {"note", OrNull(facts.note)},
          {"ignore_eos", facts.body.ignore_eos},
          {"temperature", facts.body.temperature},
          {"server",
           {{"version", OrNull(server.version)},
            {"system_fingerprint", OrNull(server.fingerprint)},
            {"header", OrNull(server.header)},
            {"owned_by", OrNull(server.owned_by)},
            {"max_model_len", OrNull(server.max_model_len)},
            {"parameters", OrNull(server.parameters)},
            {"quantization", OrNull(server.quantization)},
            {"size_by_type", SizesJson(server)},
            {"kv_cache_dtype", OrNull(server.kv_cache_dtype)},
            {"prompts_measured_by", OrNull(server.tokens_by)}}},
          {"client",
           {{"quern_bench", client.version},
            {"host", client.host},
            {"cpu", client.cpu},
            {"processors", client.processors},
            {"time", client.time}}},
          {"load", LoadJson(facts)},
          {"interrupted", facts.interrupted}};
}

}  // namespace

std::string ReportText(const RunFacts& facts, const Figures& figures) {
  std::string text;
  AddHead(text, facts);
  AddCounts(text, facts, figures);
  if (figures.done == 0) return text;
  AddDistributions(text, figures);
  Line(text, "\n{:.2f} requests/s; tokens/s: {:.1f} in, {:.1f} out, {:.1f} together",
       figures.requests_per_second, figures.prompt_tokens_per_second,
       figures.output_tokens_per_second, figures.total_tokens_per_second);
  if (facts.objective.empty()) return text;
  const Goodput& good = figures.goodput;
  Line(text,
       "goodput: {:.2f} requests/s, {:.1f} % kept {}; missed: TTFT {}, TPOT {}, ITL {}, E2E {}",
       good.requests_per_second, good.share * 100, ShowObjective(facts.objective), good.missed_ttft,
       good.missed_tpot, good.missed_itl, good.missed_e2e);
  return text;
}

json ReportJson(const RunFacts& facts, const Figures& figures) {
  json report = FactsJson(facts);
  report["summary"] = {{"seconds", figures.seconds},
                       {"done", figures.done},
                       {"failed", figures.failed},
                       {"cancelled", figures.cancelled},
                       {"ended_early", figures.ended_early},
                       {"usage_missing", figures.usage_missing},
                       {"errors", figures.errors},
                       {"prompt_tokens", figures.prompt_tokens},
                       {"wanted_prompt_tokens", figures.wanted_prompt_tokens},
                       {"cached_tokens", figures.cached_tokens},
                       {"output_tokens", figures.output_tokens},
                       {"tokens_per_event", figures.tokens_per_event},
                       {"requests_per_second", figures.requests_per_second},
                       {"prompt_tokens_per_second", figures.prompt_tokens_per_second},
                       {"output_tokens_per_second", figures.output_tokens_per_second},
                       {"total_tokens_per_second", figures.total_tokens_per_second},
                       {"mean_in_flight", figures.mean_in_flight},
                       {"ttft_seconds", ToJson(figures.ttft)},
                       {"tpot_seconds", ToJson(figures.tpot)},
                       {"itl_seconds", ToJson(figures.itl)},
                       {"itl_is_of_all_requests", figures.gaps_are_whole},
                       {"e2e_seconds", ToJson(figures.e2e)},
                       {"lateness_seconds", ToJson(figures.lateness)},
                       {"goodput", GoodputJson(facts.objective, figures.goodput)},
                       {"client_cpu_seconds", facts.cpu_seconds},
                       {"server_cpu_seconds", OrNull(facts.server.cpu_seconds)},
                       {"server_cpu_metric", OrNull(facts.server.cpu_metric)}};
  return report;
}

std::string RecordJson(const RequestRecord& record) {
  static constexpr const char* kOutcomes[] = {"running", "done", "failed", "cancelled"};
  json row = {{"index", record.index},
              {"outcome", kOutcomes[static_cast<size_t>(record.outcome)]},
              {"wanted_prompt_tokens", record.wanted_prompt},
              {"wanted_output_tokens", record.wanted_output},
              {"scheduled", record.scheduled},
              {"sent", record.sent},
              {"end", record.end},
              {"text_events", record.text_events}};
  const auto told = [&row](const char* key, int32_t count) {
    if (count >= 0) row[key] = count;
  };
  told("prompt_tokens", record.usage.prompt);
  told("output_tokens", record.usage.completion);
  told("cached_tokens", record.usage.cached);
  if (record.text_events > 0) {
    row["first_text"] = record.first_text;
    row["last_text"] = record.last_text;
  }
  if (!record.error.empty()) row["error"] = record.error;
  std::string text = row.dump(-1, ' ', false, json::error_handler_t::replace);
  // As text: gaps are many, and as JSON values four times as large.
  text.pop_back();
  text += R"(,"gaps":[)";
  for (size_t i = 0; i < record.gaps.size(); ++i) {
    fmt::format_to(std::back_inserter(text), "{}{:.6f}", i > 0 ? "," : "", record.gaps[i]);
  }
  return text + "]}";
}

}  // namespace quern::bench
