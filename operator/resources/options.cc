#include "operator/resources/options.h"

namespace quern::control {
namespace {

bool IsCleanAbsolutePath(const std::string& path) {
  if (path.size() < 2 || path[0] != '/' || path.back() == '/') return false;
  return (path + "/").find("/../") == std::string::npos && path.find("//") == std::string::npos &&
         path.find(':') == std::string::npos;
}

}  // namespace

Result<AllowedModelVolume> ParseModelVolume(const std::string& text) {
  const auto bad = [&](std::string_view what) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "model volume '{}': {}; write hostPath:/var/lib/models@/models or pvc:CLAIM@/models", text,
        what);
  };
  AllowedModelVolume out;
  std::string rest;
  if (text.rfind("hostPath:", 0) == 0) {
    rest = text.substr(9);
  } else if (text.rfind("pvc:", 0) == 0) {
    out.kind = AllowedModelVolume::Kind::kPvc;
    rest = text.substr(4);
  } else {
    return bad("begins with neither hostPath: nor pvc:");
  }
  const size_t at = rest.find('@');
  out.source = rest.substr(0, at);
  out.mount_path = at == std::string::npos ? "/models" : rest.substr(at + 1);
  if (out.kind == AllowedModelVolume::Kind::kHostPath && !IsCleanAbsolutePath(out.source)) {
    return bad("the directory must be an absolute path without '..', and not the root");
  }
  if (out.kind == AllowedModelVolume::Kind::kPvc &&
      (out.source.empty() || out.source.find('/') != std::string::npos)) {
    return bad("the claim's name is missing or has a '/' in it");
  }
  if (!IsCleanAbsolutePath(out.mount_path)) {
    return bad("the mount path must be an absolute path without '..', and not the root");
  }
  return out;
}

}  // namespace quern::control
