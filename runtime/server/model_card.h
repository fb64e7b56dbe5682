#pragma once

#include <nlohmann/json.hpp>

#include "runtime/server/serving_state.h"

namespace quern::server {

// What GET /v1/models says of the model: docs/api.md.
nlohmann::json ModelJson(const LoadedModel& model);

}  // namespace quern::server
