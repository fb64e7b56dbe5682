#pragma once

#include <chrono>
#include <string>

namespace quern::control {

// Kubernetes' MicroTime: "2006-01-02T15:04:05.000000Z".
std::string MicroTime(std::chrono::system_clock::time_point time);

}  // namespace quern::control
