#include "runtime/server/openapi.h"

#include <nlohmann/json.hpp>

namespace quern::server {

std::string OpenApiDocument(bool with_keys) {
  auto document = nlohmann::ordered_json::parse(kOpenApiText);
  if (!with_keys) document.erase("security");
  return document.dump();
}

}  // namespace quern::server
