// A kubeconfig of any bytes: read, or refused with a message that names the source.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "operator/kube/config.h"
#include "operator/kube/url.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern::control::kube;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = ParseKubeconfig(text, "/nonexistent", "fuzzed-file");
  if (config.ok()) {
    (void)CheckConfig(*config).ok();
  } else if (config.error().message.find("fuzzed-file") == std::string::npos) {
    std::abort();
  }
  (void)DecodeBase64(text).ok();
  (void)ParseServerUrl(text).ok();
  return 0;
}
