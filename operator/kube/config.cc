#include "operator/kube/config.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "operator/kube/url.h"

namespace quern::control::kube {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio OpenPem(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
}

Certificate ReadCertificate(const std::string& pem) {
  const Bio bio = OpenPem(pem);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free);
  ERR_clear_error();
  return certificate;
}

Key ReadKey(const std::string& pem) {
  const Bio bio = OpenPem(pem);
  // No prompt on a terminal for an encrypted key: an empty pass phrase, which fails.
  const auto no_phrase = [](char*, int, int, void*) { return 0; };
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_phrase, nullptr), &EVP_PKEY_free);
  ERR_clear_error();
  return key;
}

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

Result<std::string> ReadServiceAccountFile(const std::string& directory, const std::string& name) {
  const std::string path = directory + "/" + name;
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file || text.empty()) {
    return MakeError(ErrorCode::kNotFound,
                     "in-cluster configuration: {} is missing, empty or unreadable; is a service "
                     "account mounted? Outside a cluster give a kubeconfig",
                     path);
  }
  return text;
}

}  // namespace

Result<std::string> DecodeBase64(const std::string& text) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t group = 0;
  int digits = 0;
  int padding = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n' || c == '\r' || c == ' ' || c == '\t') continue;
    const int value = Base64Value(c);
    const bool is_padding = c == '=' && digits >= 2;
    if ((value < 0 && !is_padding) || (value >= 0 && padding > 0)) {
      return MakeError(ErrorCode::kInvalidArgument, "no base64: character {} is wrong", i);
    }
    padding += is_padding;
    group = group << 6 | static_cast<uint32_t>(is_padding ? 0 : value);
    if (++digits < 4) continue;
    for (int byte = 0; byte < 3 - padding; ++byte) {
      out.push_back(static_cast<char>(group >> (16 - 8 * byte) & 0xff));
    }
    group = 0;
    digits = 0;
    // What follows padding must be the end; a second group would have value >= 0 and be refused.
  }
  if (digits != 0) {
    return MakeError(ErrorCode::kInvalidArgument, "no base64: ends within a group of four");
  }
  return out;
}

Result<ClientConfig> ConfigInCluster(const std::string& directory) {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr || *host == '\0' || *port == '\0') {
    return MakeError(
        ErrorCode::kNotFound,
        "in-cluster configuration: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT "
        "are not set: this is no pod; give a kubeconfig");
  }
  ClientConfig config;
  config.source = "service account in " + directory;
  const bool is_ipv6 = std::string(host).find(':') != std::string::npos;
  config.server = is_ipv6 ? fmt::format("https://[{}]:{}", host, port)
                          : fmt::format("https://{}:{}", host, port);
  QUERN_ASSIGN(config.ca_pem, ReadServiceAccountFile(directory, "ca.crt"));
  QUERN_ASSIGN(config.token, ReadServiceAccountFile(directory, "token"));
  config.token.clear();  // only looked at: the file is read again when it is rotated
  config.token_file = directory + "/token";
  std::ifstream ns(directory + "/namespace");
  std::string line;
  if (std::getline(ns, line) && !line.empty()) config.default_namespace = line;
  QUERN_TRY(CheckConfig(config));
  return config;
}

Status CheckConfig(const ClientConfig& config) {
  const auto wrong = [&](const std::string& what) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: {}",
                     config.source.empty() ? "client configuration" : config.source, what);
  };
  if (auto url = ParseServerUrl(config.server); !url) return wrong(url.error().message);
  if (!config.ca_pem.empty() && !ReadCertificate(config.ca_pem)) {
    return wrong("certificate-authority: no PEM certificate in it");
  }
  if (config.client_certificate_pem.empty() && config.client_key_pem.empty()) return {};
  const Certificate certificate = ReadCertificate(config.client_certificate_pem);
  if (!certificate) return wrong("client-certificate: no PEM certificate in it");
  const Key key = ReadKey(config.client_key_pem);
  if (!key) return wrong("client-key: no PEM private key in it, or it has a pass phrase");
  const bool match = X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (!match) return wrong("client-key: does not belong to client-certificate");
  return {};
}

}  // namespace quern::control::kube
