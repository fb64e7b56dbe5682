#include "runtime/bench/server_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/bench/stream_event.h"

namespace quern::bench {
namespace {

using nlohmann::json;

constexpr size_t kMaxTypes = 64;  // of weights: GGUF has half as many

// A member that is a text, fit for a line of a report; else "".
std::string TextOf(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? OneLine(found->get<std::string>()) : "";
}

int64_t CountOf(const json& object, const char* key) {
  const auto found = object.find(key);
  const bool there = found != object.end() && found->is_number_integer();
  return there ? std::max<int64_t>(0, found->get<int64_t>()) : 0;
}

void ReadMeta(const json& model, ServerFacts& facts) {
  const auto meta = model.find("meta");
  if (meta == model.end() || !meta->is_object()) return;
  facts.parameters = CountOf(*meta, "n_params");
  facts.quantization = TextOf(*meta, "quantization");
  if (facts.quantization.empty()) facts.quantization = TextOf(*meta, "ftype");
  facts.kv_cache_dtype = TextOf(*meta, "kv_cache_dtype");
  const auto by_type = meta->find("size_by_type");
  if (by_type == meta->end() || !by_type->is_object() || by_type->size() > kMaxTypes) return;
  for (const auto& [type, bytes] : by_type->items()) {
    if (!bytes.is_number_integer()) continue;
    facts.size_by_type.emplace_back(OneLine(type), bytes.get<int64_t>());
  }
  std::ranges::stable_sort(facts.size_by_type, std::greater(),
                           &std::pair<std::string, int64_t>::second);
}

// One line of the text format: name, labels, value.
struct Sample {
  std::string_view name;
  std::map<std::string, std::string, std::less<>> labels;
  double value = 0;
};

// Takes `{a="b",...}` off the front of `text`. False: it is no such thing.
bool TakeLabels(std::string_view& text, Sample& sample) {
  text.remove_prefix(1);
  while (!text.empty() && text.front() != '}') {
    const size_t equals = text.find("=\"");
    if (equals == std::string_view::npos) return false;
    const std::string_view name = text.substr(0, equals);
    text.remove_prefix(equals + 2);
    std::string value;
    while (!text.empty() && text.front() != '"') {
      if (text.front() == '\\' && text.size() > 1) text.remove_prefix(1);
      value += text.front();
      text.remove_prefix(1);
    }
    if (text.empty()) return false;
    text.remove_prefix(1);
    sample.labels[std::string(name)] = std::move(value);
    if (text.starts_with(',')) text.remove_prefix(1);
  }
  if (text.empty()) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Sample> ReadSample(std::string_view line) {
  Sample sample;
  const size_t end = line.find_first_of("{ ");
  if (end == 0 || end == std::string_view::npos || line.front() == '#') return std::nullopt;
  sample.name = line.substr(0, end);
  line.remove_prefix(end);
  if (line.front() == '{' && !TakeLabels(line, sample)) return std::nullopt;
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const auto [at, error] = std::from_chars(line.data(), line.data() + line.size(), sample.value);
  if (error != std::errc() || (at != line.data() + line.size() && *at != ' ')) return std::nullopt;
  return sample;
}

}  // namespace

std::string ServerFacts::Precision() const {
  if (quantization.empty() && kv_cache_dtype.empty()) return "";
  std::vector<std::string_view> others;
  for (const auto& [type, bytes] : size_by_type) {
    if (type != quantization) others.emplace_back(type);
  }
  return fmt::format("{}{}, KV {}", quantization.empty() ? "weights not told" : quantization,
                     others.empty() ? "" : fmt::format(" (with {})", fmt::join(others, ", ")),
                     kv_cache_dtype.empty() ? "not told" : kv_cache_dtype);
}

void ReadModels(std::string_view body, ServerFacts& facts) {
  const json listed = json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!listed.is_object() || !listed.contains("data") || !listed["data"].is_array()) return;
  for (const json& model : listed["data"]) {
    if (!model.is_object()) continue;
    const auto id = model.find("id");
    if (id == model.end() || !id->is_string() || id->get_ref<const std::string&>().empty())
      continue;
    if (facts.model.empty()) facts.model = id->get<std::string>();
    if (*id != facts.model) continue;
    facts.owned_by = TextOf(model, "owned_by");
    facts.max_model_len = CountOf(model, "max_model_len");
    ReadMeta(model, facts);
    return;
  }
}

ProcessFacts ReadProcessFacts(std::string_view exposition) {
  constexpr std::string_view kOurs = "quern_process_cpu_seconds_total";
  constexpr std::string_view kUsual = "process_cpu_seconds_total";
  ProcessFacts facts;
  while (!exposition.empty()) {
    const size_t end = exposition.find('\n');
    const auto sample = ReadSample(exposition.substr(0, end));
    exposition.remove_prefix(std::min(end, exposition.size() - 1) + 1);
    if (!sample) continue;
    if (sample->name == "quern_compute_info") {
      const auto label = [&sample](std::string_view name) {
        const auto found = sample->labels.find(name);
        return found != sample->labels.end() ? OneLine(found->second) : "";
      };
      facts.hardware = fmt::format("{}; {}", label("cpu"), label("compute"));
    }
    const bool ours = sample->name == kOurs, usual = sample->name == kUsual;
    if ((!ours && !usual) || !std::isfinite(sample->value)) continue;
    if (usual && facts.cpu_metric == kOurs) continue;
    facts.cpu_metric = sample->name;
    facts.cpu_seconds = sample->value;
  }
  return facts;
}

}  // namespace quern::bench
