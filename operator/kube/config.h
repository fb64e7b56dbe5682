#pragma once

#include <string>

#include "runtime/base/result.h"

namespace quern::control::kube {

// Where the API server is and who we are to it. Certificates and keys are PEM text.
struct ClientConfig {
  std::string server;  // "https://host:port", or with a path behind it
  std::string ca_pem;  // the only authorities that are trusted; "" for the system's own
  std::string client_certificate_pem;
  std::string client_key_pem;
  std::string token;            // a fixed bearer token
  std::string token_file;       // goes before `token`; read again when it is rotated
  std::string tls_server_name;  // the name in the server's certificate, where it is not the host's
  std::string default_namespace = "default";
  std::string source;  // where all of this came from, for messages
};

// A pod's own identity: the service account's files and KUBERNETES_SERVICE_HOST and _PORT.
// Errors: kNotFound when this is no pod, naming what is missing.
Result<ClientConfig> ConfigInCluster(
    const std::string& directory = "/var/run/secrets/kubernetes.io/serviceaccount");

// A kubeconfig file, and the named context in it ("" for current-context). Relative paths in it
// are relative to it. Errors: kNotFound (no file), kInvalidArgument, naming the file and the field;
// kUnsupported for what is refused on purpose: exec and auth-provider plugins (they run programs),
// user names with passwords, impersonation, and insecure-skip-tls-verify.
Result<ClientConfig> ConfigFromKubeconfig(const std::string& path, const std::string& context = "");

// The same from text, with relative paths taken from `directory`; `source` names it in messages.
// Takes any bytes.
Result<ClientConfig> ParseKubeconfig(const std::string& text, const std::string& directory,
                                     const std::string& source, const std::string& context = "");

// Checks that the certificates parse, that the key is the certificate's, and that the server's URL
// is one. Errors: kInvalidArgument, naming the part.
Status CheckConfig(const ClientConfig& config);

// Standard base64 (RFC 4648), line breaks allowed. Error: kInvalidArgument with the offset.
Result<std::string> DecodeBase64(const std::string& text);

}  // namespace quern::control::kube
