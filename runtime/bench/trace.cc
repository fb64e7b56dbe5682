#include "runtime/bench/trace.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quern::bench {
namespace {

using nlohmann::json;

constexpr size_t kMaxColumns = 64;

template <typename... Args>
Error Wrong(size_t line, fmt::format_string<Args...> format, Args&&... args) {
  return MakeError(ErrorCode::kInvalidArgument, "line {}: {}", line,
                   fmt::format(format, std::forward<Args>(args)...));
}

// For a message: not a whole line of somebody's data.
std::string_view Short(std::string_view text) { return text.substr(0, 40); }

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The lines of a text one after the other, without those that are blank.
class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(text) {}
  std::optional<std::string_view> Next() {
    while (!rest_.empty()) {
      const size_t end = rest_.find('\n');
      const std::string_view line = Trim(rest_.substr(0, end));
      rest_ = end == std::string_view::npos ? std::string_view() : rest_.substr(end + 1);
      ++number_;
      if (!line.empty()) return line;
    }
    return std::nullopt;
  }
  size_t number() const { return number_; }

 private:
  std::string_view rest_;
  size_t number_ = 0;
};

// The whole of `text` as a number.
template <typename T>
std::optional<T> Number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "2023-11-16 18:17:03.9799600", with 'T' for the space or a 'Z' at the end if it likes, as seconds
// since 1970.
std::optional<double> Date(std::string_view text) {
  if (text.ends_with('Z')) text.remove_suffix(1);
  if (text.size() < 19 || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' ||
      (text[10] != ' ' && text[10] != 'T')) {
    return std::nullopt;
  }
  const auto year = Number<int>(text.substr(0, 4));
  const auto month = Number<unsigned>(text.substr(5, 2)), day = Number<unsigned>(text.substr(8, 2));
  const auto hour = Number<unsigned>(text.substr(11, 2)),
             minute = Number<unsigned>(text.substr(14, 2));
  const auto second = Number<double>(text.substr(17));
  if (!year || !month || !day || !hour || !minute || !second) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(*month),
                                         std::chrono::day(*day)};
  if (!date.ok() || *hour > 23 || *minute > 59 || !(*second >= 0 && *second < 61)) {
    return std::nullopt;
  }
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(days) * 86400 + *hour * 3600.0 + *minute * 60.0 + *second;
}

Result<int32_t> Length(int64_t tokens, size_t line, std::string_view what) {
  if (tokens < 0 || tokens > kMaxTraceTokens) {
    return Wrong(line, "{} is {}; lengths are from 0 to {} tokens", what, tokens, kMaxTraceTokens);
  }
  return std::max<int32_t>(1, static_cast<int32_t>(tokens));
}

// ---- CSV ----

enum Column : size_t { kTime, kPrompt, kOutput, kColumns };

struct ColumnNames {
  const char* shown;
  std::array<std::string_view, 4> names;  // in lower case
};
constexpr std::array<ColumnNames, kColumns> kColumnNames = {{
    {"TIMESTAMP", {"timestamp", "arrival_time", "arrived_at", "time"}},
    {"ContextTokens", {"contexttokens", "input_length", "request tokens", "prompt_tokens"}},
    {"GeneratedTokens", {"generatedtokens", "output_length", "response tokens", "output_tokens"}},
}};

std::vector<std::string_view> Split(std::string_view line) {
  std::vector<std::string_view> fields;
  while (fields.size() < kMaxColumns) {
    const size_t comma = line.find(',');
    fields.push_back(Trim(line.substr(0, comma)));
    if (comma == std::string_view::npos) break;
    line.remove_prefix(comma + 1);
  }
  return fields;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Where each column is.
Result<std::array<size_t, kColumns>> ReadHead(std::string_view line, size_t number) {
  const auto fields = Split(line);
  std::array<size_t, kColumns> places{};
  for (size_t column = 0; column < kColumns; ++column) {
    const auto& names = kColumnNames[column].names;
    const auto found = std::find_if(fields.begin(), fields.end(), [&](std::string_view field) {
      return std::find(names.begin(), names.end(), Lower(field)) != names.end();
    });
    if (found == fields.end()) {
      return Wrong(number,
                   "the head of a CSV trace must name a column {} (and TIMESTAMP, ContextTokens, "
                   "GeneratedTokens); it begins '{}'",
                   kColumnNames[column].shown, Short(line));
    }
    places[column] = static_cast<size_t>(found - fields.begin());
  }
  return places;
}

Result<TraceRequest> ReadRow(std::string_view line, size_t number,
                             const std::array<size_t, kColumns>& places) {
  const auto fields = Split(line);
  for (size_t column = 0; column < kColumns; ++column) {
    if (places[column] < fields.size()) continue;
    return Wrong(number, "it has {} fields, and {} is the one at {}", fields.size(),
                 kColumnNames[column].shown, places[column] + 1);
  }
  TraceRequest request;
  const std::string_view time = fields[places[kTime]];
  const auto seconds = Number<double>(time);
  const auto at = seconds ? seconds : Date(time);
  if (!at || !std::isfinite(*at)) {
    return Wrong(number, "'{}' is no time; write 2023-11-16 18:17:03.97 or seconds", Short(time));
  }
  request.at = *at;
  for (const Column column : {kPrompt, kOutput}) {
    const std::string_view field = fields[places[column]];
    const auto tokens = Number<int64_t>(field);
    if (!tokens) {
      return Wrong(number, "{}: '{}' is no number of tokens", kColumnNames[column].shown,
                   Short(field));
    }
    QUERN_ASSIGN((column == kPrompt ? request.prompt_tokens : request.output_tokens),
                 Length(*tokens, number, kColumnNames[column].shown));
  }
  return request;
}

// ---- JSONL ----

Result<int32_t> ReadLength(const json& object, const char* key, size_t line) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer()) {
    return Wrong(line, "\"{}\" must be there, as a number of tokens", key);
  }
  // A huge unsigned number must not become a small one.
  const bool huge =
      found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{kMaxTraceTokens};
  return Length(huge ? int64_t{kMaxTraceTokens} + 1 : found->get<int64_t>(), line, key);
}

Result<TraceRequest> ReadObject(std::string_view text, size_t line) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return Wrong(line, "it is no JSON object");
  TraceRequest request;
  const auto time = object.find("timestamp");
  if (time == object.end() || !time->is_number() || !std::isfinite(time->get<double>())) {
    return Wrong(line, "\"timestamp\" must be there, as a number of milliseconds");
  }
  request.at = time->get<double>() / 1000;
  QUERN_ASSIGN(request.prompt_tokens, ReadLength(object, "input_length", line));
  QUERN_ASSIGN(request.output_tokens, ReadLength(object, "output_length", line));
  const auto ids = object.find("hash_ids");
  if (ids == object.end() || ids->is_null()) return request;
  if (!ids->is_array()) return Wrong(line, "\"hash_ids\" must be a list of whole numbers");
  for (const json& id : *ids) {
    if (!id.is_number_integer()) return Wrong(line, "\"hash_ids\" must be a list of whole numbers");
    request.blocks.push_back(id.get<int64_t>());
  }
  return request;
}

}  // namespace

Result<std::vector<TraceRequest>> ParseTrace(std::string_view text, size_t limit) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool is_json = first != std::string_view::npos && text[first] == '{';
  Lines lines(text);
  std::array<size_t, kColumns> places{};
  if (!is_json) {
    const auto head = lines.Next();
    if (!head) return MakeError(ErrorCode::kInvalidArgument, "the trace is empty");
    QUERN_ASSIGN(places, ReadHead(*head, lines.number()));
  }
  std::vector<TraceRequest> requests;
  limit = std::min(limit, kMaxTraceRequests);
  while (requests.size() < limit) {
    const auto line = lines.Next();
    if (!line) break;
    auto request =
        is_json ? ReadObject(*line, lines.number()) : ReadRow(*line, lines.number(), places);
    if (!request) return std::move(request).error();
    requests.push_back(std::move(request).value());
  }
  if (requests.empty()) return MakeError(ErrorCode::kInvalidArgument, "the trace has no requests");
  std::stable_sort(requests.begin(), requests.end(),
                   [](const TraceRequest& a, const TraceRequest& b) { return a.at < b.at; });
  const double start = requests.front().at;
  for (TraceRequest& request : requests) request.at -= start;
  // Times whose difference is not finite: from -1e308 to 1e308.
  if (!std::isfinite(requests.back().at)) {
    return MakeError(ErrorCode::kInvalidArgument, "the trace's times are too far apart");
  }
  return requests;
}

}  // namespace quern::bench
