// Any JSON as an InferenceEndpoint: never a crash, and what is accepted survives being written and
// read again.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "operator/api/endpoint.h"
#include "operator/autoscaling/record.h"
#include "operator/resources/children.h"

using nlohmann::json;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const json object = json::parse(data, data + size, nullptr, false);
  if (object.is_discarded()) return 0;
  (void)quern::control::RecordFromJson(object);
  auto endpoint = quern::control::ParseEndpoint(object);
  if (!endpoint) {
    if (endpoint.error().message.empty()) std::abort();
    return 0;
  }
  json again = {{"metadata", {{"name", endpoint->name}, {"namespace", endpoint->ns}}},
                {"spec", quern::control::SpecToJson(*endpoint)}};
  const auto second = quern::control::ParseEndpoint(again);
  if (!second || quern::control::SpecToJson(*second) != again["spec"]) std::abort();
  (void)quern::control::ToJson(endpoint->status).dump();
  quern::control::ResourceOptions options;
  options.model_volume = quern::control::AllowedModelVolume{
      quern::control::AllowedModelVolume::Kind::kHostPath, "/var/lib/models", "/models"};
  for (const json& child : quern::control::MakeChildren(*endpoint, {1}, options)) {
    if (child["kind"] != "Deployment") continue;
    const std::string model = child["spec"]["template"]["spec"]["containers"][0]["args"][0];
    if ((model + "/").find("/../") != std::string::npos)
      std::abort();  // no path leads out of its root
  }
  return 0;
}
