#include "operator/resources/image_policy.h"

#include <algorithm>

namespace quern::control {

bool IsImageUnder(const std::string& image, const std::string& prefix) {
  if (prefix.empty() || !image.starts_with(prefix)) return false;
  const std::string rest = image.substr(prefix.size());
  if (rest.empty() || prefix.back() == '/') return true;
  if (rest[0] == '/') return true;
  // A tag or a digest ends the reference; before a '/' the ':' is a port, and so another host.
  return (rest[0] == ':' || rest[0] == '@') && rest.find('/') == std::string::npos;
}

Status CheckImagePrefix(const std::string& prefix) {
  const bool printable = std::all_of(prefix.begin(), prefix.end(), [](unsigned char c) {
    return c > 0x20 && c < 0x7F && c != ',';
  });
  if (!prefix.empty() && printable) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no image or part of one; write registry.example/team/ or "
                   "registry.example/quern/serve",
                   prefix);
}

Status CheckImage(const InferenceEndpoint& e, const ResourceOptions& options) {
  const std::string& image = e.runtime.image;
  if (image.empty() || image == options.serve_image || options.allowed_images.empty()) return {};
  std::string allowed;
  for (const std::string& prefix : options.allowed_images) {
    if (IsImageUnder(image, prefix)) return {};
    allowed += (allowed.empty() ? "" : ", ") + prefix;
  }
  return MakeError(ErrorCode::kPermissionDenied,
                   "spec.runtime.image: '{}' is not allowed; the administrator allows images under "
                   "{} (--allowed-image), and {}, which runs where none is named",
                   image, allowed, options.serve_image);
}

}  // namespace quern::control
