#pragma once

#include <string>

#include "operator/api/endpoint.h"
#include "operator/resources/options.h"
#include "runtime/base/result.h"

namespace quern::control {

// Whether `image` lies under `prefix`: it is the prefix, or goes on from it with a path, a tag or a
// digest. "r.example/quern" allows r.example/quern:1 and r.example/quern/serve, but not
// r.example/quern-evil, and "r.example" not another port of that host. Texts are compared as they
// are: an image of a registry that is left out ("nginx") is under no "docker.io/".
bool IsImageUnder(const std::string& image, const std::string& prefix);

// What may stand in --allowed-image. Error: kInvalidArgument.
Status CheckImagePrefix(const std::string& prefix);

// The image that the variant's pods run: the endpoint's, else the operator's for such a variant. ""
// where CheckCudaImage refuses.
const std::string& ImageFor(const InferenceEndpoint& endpoint, const HardwareVariant& variant,
                            const ResourceOptions& options);

// Whether the endpoint may name the image that it names. Error: kPermissionDenied, with the field
// and what is allowed. The operator's own images for endpoints that name none always are.
Status CheckImage(const InferenceEndpoint& endpoint, const ResourceOptions& options);

// Whether variants with GPUs run an image that may compute on them: not the operator's one for
// CPUs, and not none. Error: kInvalidArgument, with the fields.
Status CheckCudaImage(const InferenceEndpoint& endpoint, const ResourceOptions& options);

}  // namespace quern::control
