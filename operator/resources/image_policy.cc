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

const std::string& ImageFor(const InferenceEndpoint& e, const HardwareVariant& variant,
                            const ResourceOptions& options) {
  if (!e.runtime.image.empty()) return e.runtime.image;
  return variant.gpus > 0 ? options.serve_image_cuda : options.serve_image;
}

Status CheckImage(const InferenceEndpoint& e, const ResourceOptions& options) {
  const std::string& image = e.runtime.image;
  if (image.empty() || options.allowed_images.empty()) return {};
  if (image == options.serve_image || image == options.serve_image_cuda) return {};
  std::string allowed;
  for (const std::string& prefix : options.allowed_images) {
    if (IsImageUnder(image, prefix)) return {};
    allowed += (allowed.empty() ? "" : ", ") + prefix;
  }
  std::string own = options.serve_image;
  if (!options.serve_image_cuda.empty()) own += " and " + options.serve_image_cuda;
  return MakeError(ErrorCode::kPermissionDenied,
                   "spec.runtime.image: '{}' is not allowed; the administrator allows images under "
                   "{} (--allowed-image), and {}, which runs where none is named",
                   image, allowed, own);
}

Status CheckCudaImage(const InferenceEndpoint& e, const ResourceOptions& options) {
  for (const HardwareVariant& variant : e.hardware) {
    if (variant.gpus == 0) continue;
    const std::string& image = ImageFor(e, variant, options);
    if (image.empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "spec.hardware[]: variant '{}' asks for GPUs, but the operator has no image "
                       "with CUDA; set spec.runtime.image, or let the administrator set "
                       "--serve-image-cuda (chart value image.serveCuda)",
                       variant.name);
    }
    if (image == options.serve_image && image != options.serve_image_cuda) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "spec.runtime.image: '{}' is the operator's image for CPUs, but variant "
                       "'{}' asks for GPUs; {}",
                       image, variant.name,
                       options.serve_image_cuda.empty()
                           ? "name one with CUDA"
                           : "leave it out, which runs " + options.serve_image_cuda);
    }
  }
  return {};
}

}  // namespace quern::control
