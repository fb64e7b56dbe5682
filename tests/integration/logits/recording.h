#pragma once

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace quern {

// The reference's most likely tokens after one position.
struct RecordedPosition {
  std::vector<uint32_t> ids;           // most likely first
  std::vector<float> log_probability;  // of each
};

// One of tests/recordings/logits/*.logits; the format is make.py's.
struct Recording {
  nlohmann::json header;
  std::vector<RecordedPosition> positions;  // of all prompts, in order
};

inline Recording ReadRecording(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string header;
  std::getline(file, header);
  Recording recording;
  recording.header = nlohmann::json::parse(header);
  const auto top = recording.header["top"].get<size_t>();
  for (const auto& prompt : recording.header["prompts"]) {
    for (size_t i = 0; i < prompt["positions"].size(); ++i) {
      RecordedPosition position{std::vector<uint32_t>(top), std::vector<float>(top)};
      file.read(reinterpret_cast<char*>(position.ids.data()),
                static_cast<std::streamsize>(top * sizeof(uint32_t)));
      file.read(reinterpret_cast<char*>(position.log_probability.data()),
                static_cast<std::streamsize>(top * sizeof(float)));
      recording.positions.push_back(std::move(position));
    }
  }
  if (!file) throw std::runtime_error(path + " is shorter than its header says");
  return recording;
}

// KL(reference || model) over the recorded tokens and the rest as one outcome: make.py's
// divergence().
inline double Divergence(const RecordedPosition& reference, std::span<const float> logits,
                         double log_sum_exp) {
  double sum = 0;
  double p_rest = 1;
  double q_rest = 1;
  for (size_t i = 0; i < reference.ids.size(); ++i) {
    const double p_log = reference.log_probability[i];
    const double q_log = logits[reference.ids[i]] - log_sum_exp;
    sum += std::exp(p_log) * (p_log - q_log);
    p_rest -= std::exp(p_log);
    q_rest -= std::exp(q_log);
  }
  p_rest = std::max(p_rest, 1e-12);
  q_rest = std::max(q_rest, 1e-12);
  return sum + p_rest * std::log(p_rest / q_rest);
}

// As numpy.percentile does, between the two nearest values.
inline double Percentile(std::vector<double> values, double percent) {
  std::sort(values.begin(), values.end());
  const double rank = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (rank - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace quern
