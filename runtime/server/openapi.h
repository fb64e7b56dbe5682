#pragma once

#include <string>

namespace quern::server {

// The text of openapi.json, with the version in it.
extern const char kOpenApiText[];

// What GET /openapi.json answers: an OpenAPI 3.1 document of the public port. `with_keys`: the
// server asks for tenants' keys; without it the document asks for none.
std::string OpenApiDocument(bool with_keys);

}  // namespace quern::server
