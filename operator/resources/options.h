#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace quern::control {

// A volume that the administrator lets endpoints of any namespace read models from.
struct AllowedModelVolume {
  enum class Kind { kHostPath, kPvc };
  Kind kind = Kind::kHostPath;
  std::string
      source;  // kHostPath: absolute directory on the node; kPvc: claim in the endpoint's namespace
  std::string mount_path;  // where it is mounted, read-only; file:// URIs below it use it
};

// Reads "hostPath:/dir@/models" or "pvc:claim@/models"; without "@..." it is mounted at /models.
// Error: kInvalidArgument.
Result<AllowedModelVolume> ParseModelVolume(const std::string& text);

// What the operator's configuration adds to every endpoint's objects.
struct ResourceOptions {
  std::string serve_image;                  // for endpoints that name none
  std::string serve_image_cuda;             // the same for variants with GPUs; "" = there is none
  std::vector<std::string> allowed_images;  // what they may name (image_policy.h); empty: any image
  std::optional<AllowedModelVolume> model_volume;
  std::string gpu_runtime_class = "nvidia";  // of pods with GPUs; "" = none
  std::string operator_namespace = "quern";  // may scrape the pods' administrative port
  std::string cluster_domain = "cluster.local";
  std::string log_format = "text";  // of the runtime: text or json
};

}  // namespace quern::control
