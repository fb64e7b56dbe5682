// The body of a refusal, of any bytes: always an error with a bounded message in front of which
// stands what was done. And the readers of objects on whatever JSON that is.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "operator/kube/api_status.h"
#include "operator/kube/object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace quern::control::kube;
  const std::string body(reinterpret_cast<const char*>(data), size);
  const auto error = ErrorFromHttp(409, body, "get x");
  if (!error.message.starts_with("get x: ")) std::abort();
  const json object = json::parse(body, nullptr, /*allow_exceptions=*/false);
  (void)ErrorFromStatus(object, "watch x");
  (void)KeyOf(object);
  (void)ObjectGeneration(object);
  (void)ControllerOf(object);
  (void)IsBeingDeleted(object);
  (void)ObjectLabel(object, "a");
  (void)StringAt(object, "/metadata/name/0/~1");
  return 0;
}
