#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "operator/kube/config.h"

namespace quern::control::kube {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

Result<std::string> ReadSmallFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return MakeError(ErrorCode::kNotFound, "{}: there is no such file", path);
  }
  if (!std::filesystem::is_regular_file(path, error)) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: not a regular file", path);
  }
  if (std::filesystem::file_size(path, error) > kMaxFileBytes || error) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: larger than {} bytes", path, kMaxFileBytes);
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return MakeError(ErrorCode::kPermissionDenied, "{}: cannot be read", path);
  return text.str();
}

Error FieldError(const std::string& source, const std::string& field, const std::string& what) {
  return MakeError(ErrorCode::kInvalidArgument, "kubeconfig {}: {}: {}", source, field, what);
}

// One kubeconfig being read; the members name where we are in messages.
class Reader {
 public:
  Reader(const YAML::Node& root, std::string directory, std::string source)
      : root_(root), directory_(std::move(directory)), source_(std::move(source)) {}

  Result<ClientConfig> Read(const std::string& wanted_context) {
    if (!root_.IsMap()) {
      return FieldError(source_, "the document",
                        "is no mapping; a kubeconfig has clusters, users "
                        "and contexts");
    }
    std::string context = wanted_context;
    if (context.empty()) {
      QUERN_ASSIGN(context, String(root_, "", "current-context"));
    }
    if (context.empty()) {
      return FieldError(source_, "current-context", "is empty; set it, or name a context");
    }
    ClientConfig config;
    config.source = source_;
    QUERN_ASSIGN(const YAML::Node body, Entry("contexts", "context", context));
    const std::string where = "contexts[" + context + "].context";
    QUERN_ASSIGN(const std::string cluster, String(body, where, "cluster"));
    QUERN_ASSIGN(const std::string user, String(body, where, "user"));
    QUERN_ASSIGN(const std::string ns, String(body, where, "namespace"));
    if (cluster.empty()) return FieldError(source_, where + ".cluster", "is missing");
    if (!ns.empty()) config.default_namespace = ns;
    QUERN_TRY(ReadCluster(cluster, config));
    if (!user.empty()) QUERN_TRY(ReadUser(user, config));
    return config;
  }

 private:
  // The mapping `kind` within the entry of list `list` that is called `name`.
  Result<YAML::Node> Entry(const std::string& list, const std::string& kind,
                           const std::string& name) {
    const YAML::Node entries = root_[list];
    if (!entries || !entries.IsSequence())
      return FieldError(source_, list, "is missing or no list");
    std::string known;
    for (const YAML::Node& entry : entries) {
      if (!entry.IsMap() || !entry["name"] || !entry["name"].IsScalar()) continue;
      const std::string& entry_name = entry["name"].Scalar();
      if (entry_name == name) {
        const YAML::Node body = entry[kind];
        if (!body || !body.IsMap()) {
          return FieldError(source_, list + "[" + name + "]." + kind, "is missing or no mapping");
        }
        return body;
      }
      if (known.size() < 400) known += (known.empty() ? "" : ", ") + entry_name;
    }
    return FieldError(
        source_, list,
        fmt::format("has no entry '{}'; there is: {}", name, known.empty() ? "none" : known));
  }

  // "" where the field is absent.
  Result<std::string> String(const YAML::Node& map, const std::string& where,
                             const std::string& field) {
    const YAML::Node value = map[field];
    if (!value || value.IsNull()) return std::string();
    if (!value.IsScalar()) {
      return FieldError(source_, where.empty() ? field : where + "." + field, "must be a string");
    }
    return value.Scalar();
  }

  // The bytes of `field`-data (base64) or, where that is absent, of the file that `field` names.
  Result<std::string> Data(const YAML::Node& map, const std::string& where,
                           const std::string& field) {
    QUERN_ASSIGN(const std::string inlined, String(map, where, field + "-data"));
    if (!inlined.empty()) {
      auto decoded = DecodeBase64(inlined);
      if (!decoded)
        return FieldError(source_, where + "." + field + "-data", decoded.error().message);
      return decoded;
    }
    QUERN_ASSIGN(const std::string path, String(map, where, field));
    if (path.empty()) return std::string();
    auto content = ReadSmallFile(Resolve(path));
    if (!content) return FieldError(source_, where + "." + field, content.error().message);
    return content;
  }

  std::string Resolve(const std::string& path) const {
    return std::filesystem::path(path).is_absolute() || directory_.empty()
               ? path
               : directory_ + "/" + path;
  }

  Status Refuse(const YAML::Node& map, const std::string& where, const std::string& field,
                const std::string& instead) {
    const YAML::Node value = map[field];
    if (!value || value.IsNull()) return {};
    return MakeError(ErrorCode::kUnsupported, "kubeconfig {}: {}.{} is not supported; {}", source_,
                     where, field, instead);
  }

  Status ReadCluster(const std::string& name, ClientConfig& config) {
    QUERN_ASSIGN(const YAML::Node cluster, Entry("clusters", "cluster", name));
    const std::string where = "clusters[" + name + "].cluster";
    QUERN_TRY(Refuse(cluster, where, "proxy-url", "reach the server directly"));
    QUERN_ASSIGN(const std::string insecure, String(cluster, where, "insecure-skip-tls-verify"));
    if (!insecure.empty() && insecure != "false") {
      return MakeError(
          ErrorCode::kUnsupported,
          "kubeconfig {}: {}.insecure-skip-tls-verify is refused: whoever answers would "
          "get the credentials; give certificate-authority-data instead",
          source_, where);
    }
    QUERN_ASSIGN(config.server, String(cluster, where, "server"));
    if (config.server.empty()) return FieldError(source_, where + ".server", "is missing");
    QUERN_ASSIGN(config.ca_pem, Data(cluster, where, "certificate-authority"));
    QUERN_ASSIGN(config.tls_server_name, String(cluster, where, "tls-server-name"));
    return {};
  }

  Status ReadUser(const std::string& name, ClientConfig& config) {
    QUERN_ASSIGN(const YAML::Node user, Entry("users", "user", name));
    const std::string where = "users[" + name + "].user";
    const std::string instead = "use a token, a tokenFile or a client certificate";
    for (const char* field : {"exec", "auth-provider", "username", "password", "as", "as-uid",
                              "as-groups", "as-user-extra"}) {
      QUERN_TRY(Refuse(user, where, field, instead));
    }
    QUERN_ASSIGN(config.client_certificate_pem, Data(user, where, "client-certificate"));
    QUERN_ASSIGN(config.client_key_pem, Data(user, where, "client-key"));
    QUERN_ASSIGN(config.token, String(user, where, "token"));
    QUERN_ASSIGN(const std::string token_file, String(user, where, "tokenFile"));
    if (!token_file.empty()) config.token_file = Resolve(token_file);
    if (config.client_certificate_pem.empty() != config.client_key_pem.empty()) {
      return FieldError(source_, where,
                        "has a client-certificate without client-key, or the other "
                        "way round; both are needed");
    }
    return {};
  }

  const YAML::Node root_;
  const std::string directory_;
  const std::string source_;
};

}  // namespace

Result<ClientConfig> ParseKubeconfig(const std::string& text, const std::string& directory,
                                     const std::string& source, const std::string& context) {
  if (text.size() > kMaxFileBytes) {
    return MakeError(ErrorCode::kInvalidArgument, "kubeconfig {}: larger than {} bytes", source,
                     kMaxFileBytes);
  }
  try {
    return Reader(YAML::Load(text), directory, source).Read(context);
  } catch (const YAML::Exception& error) {  // syntax; also an access that a wrong type forbids
    return MakeError(ErrorCode::kInvalidArgument, "kubeconfig {}: no valid YAML: {}", source,
                     error.what());
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kInvalidArgument, "kubeconfig {}: {}", source, error.what());
  }
}

Result<ClientConfig> ConfigFromKubeconfig(const std::string& path, const std::string& context) {
  auto text = ReadSmallFile(path);
  if (!text) return std::move(text).error().Within("kubeconfig");
  const std::string directory = std::filesystem::path(path).parent_path().string();
  QUERN_ASSIGN(ClientConfig config, ParseKubeconfig(*text, directory, path, context));
  QUERN_TRY(CheckConfig(config));
  return config;
}

}  // namespace quern::control::kube
