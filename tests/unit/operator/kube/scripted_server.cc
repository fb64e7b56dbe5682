#include "tests/unit/operator/kube/scripted_server.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <stdexcept>

namespace quern::control::kube::testing {
namespace {

struct Pair {
  EVP_PKEY* key;
  X509* certificate;
};

std::string ToPem(X509* certificate) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string pem(data, static_cast<size_t>(size));
  BIO_free(bio);
  return pem;
}

std::string ToPem(EVP_PKEY* key) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string pem(data, static_cast<size_t>(size));
  BIO_free(bio);
  return pem;
}

void AddExtension(X509* certificate, int nid, const std::string& value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// `issuer` null: self-signed, an authority.
Pair MakePair(const std::string& name, const Pair* issuer, const std::string& alternative_names) {
  static std::atomic<long> serial{1};
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial.fetch_add(1));
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(
      certificate, X509_get_subject_name(issuer != nullptr ? issuer->certificate : certificate));
  if (issuer == nullptr) AddExtension(certificate, NID_basic_constraints, "critical,CA:TRUE");
  if (!alternative_names.empty())
    AddExtension(certificate, NID_subject_alt_name, alternative_names);
  X509_sign(certificate, issuer != nullptr ? issuer->key : key, EVP_sha256());
  return {key, certificate};
}

void Free(const Pair& pair) {
  EVP_PKEY_free(pair.key);
  X509_free(pair.certificate);
}

X509* ReadCertificate(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return certificate;
}

EVP_PKEY* ReadKey(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return key;
}

// The authority of the last MakeTestCertificates, for UseServerName.
Pair& LastAuthority() {
  static Pair pair{nullptr, nullptr};
  return pair;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return tolower(c); });
  return text;
}

// Reads one request; false when the client has gone.
bool ReadRequest(SSL* ssl, std::string& buffer, ServedRequest& request) {
  char bytes[4096];
  size_t head_end;
  while ((head_end = buffer.find("\r\n\r\n")) == std::string::npos) {
    const int count = SSL_read(ssl, bytes, sizeof bytes);
    if (count <= 0) return false;
    buffer.append(bytes, static_cast<size_t>(count));
  }
  size_t at = buffer.find("\r\n");
  const std::string first = buffer.substr(0, at);
  request.method = first.substr(0, first.find(' '));
  request.target = first.substr(first.find(' ') + 1);
  request.target.resize(request.target.rfind(' '));
  for (at += 2; at < head_end;) {
    const size_t end = buffer.find("\r\n", at);
    const std::string line = buffer.substr(at, end - at);
    const size_t colon = line.find(':');
    const size_t value = line.find_first_not_of(' ', colon + 1);
    request.headers[Lower(line.substr(0, colon))] =
        value == std::string::npos ? "" : line.substr(value);
    at = end + 2;
  }
  buffer.erase(0, head_end + 4);
  const auto length = request.headers.find("content-length");
  const size_t wanted = length == request.headers.end() ? 0 : std::stoul(length->second);
  while (buffer.size() < wanted) {
    const int count = SSL_read(ssl, bytes, sizeof bytes);
    if (count <= 0) return false;
    buffer.append(bytes, static_cast<size_t>(count));
  }
  request.body = buffer.substr(0, wanted);
  buffer.erase(0, wanted);
  return true;
}

}  // namespace

TestCertificates MakeTestCertificates() {
  const Pair ca = MakePair("test authority", nullptr, "");
  const Pair server = MakePair("api", &ca, "IP:127.0.0.1,DNS:localhost");
  const Pair client = MakePair("test-client", &ca, "");
  TestCertificates out{ToPem(ca.certificate), ToPem(server.certificate), ToPem(server.key),
                       ToPem(client.certificate), ToPem(client.key)};
  Free(server);
  Free(client);
  if (LastAuthority().key != nullptr) Free(LastAuthority());
  LastAuthority() = ca;
  return out;
}

void UseServerName(TestCertificates& certificates, const std::string& name) {
  const Pair server = MakePair("api", &LastAuthority(), "DNS:" + name);
  certificates.server_certificate = ToPem(server.certificate);
  certificates.server_key = ToPem(server.key);
  Free(server);
}

void ServedConnection::Write(const std::string& bytes) {
  if (open_ && SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) <= 0) open_ = false;
}

void ServedConnection::Answer(int status, const std::string& body,
                              const std::string& extra_headers) {
  Write("HTTP/1.1 " + std::to_string(status) + " Whatever\r\nContent-Type: application/json\r\n" +
        extra_headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
}

void ServedConnection::BeginChunked(int status) {
  Write("HTTP/1.1 " + std::to_string(status) +
        " Whatever\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
}

void ServedConnection::Chunk(const std::string& bytes) {
  char size[32];
  snprintf(size, sizeof size, "%zx\r\n", bytes.size());
  Write(size + bytes + "\r\n");
}

void ServedConnection::Reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  open_ = false;
}

void ServedConnection::Stall() {
  char byte;
  while (!closing_.load()) {
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, 20) > 0 && SSL_read(ssl_, &byte, 1) <= 0) break;
  }
  open_ = false;
}

ScriptedServer::ScriptedServer(const TestCertificates& certificates, Handler handler,
                               bool ask_client_certificate)
    : handler_(std::move(handler)), context_(SSL_CTX_new(TLS_server_method())) {
  X509* certificate = ReadCertificate(certificates.server_certificate);
  EVP_PKEY* key = ReadKey(certificates.server_key);
  SSL_CTX_use_certificate(context_, certificate);
  SSL_CTX_use_PrivateKey(context_, key);
  X509_free(certificate);
  EVP_PKEY_free(key);
  if (ask_client_certificate) {
    X509* ca = ReadCertificate(certificates.ca);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), ca);
    X509_free(ca);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);  // a client that leaves must not end the test
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener_, 64) != 0) {
    throw std::runtime_error("scripted server: no port");
  }
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { AcceptLoop(); });
}

ScriptedServer::~ScriptedServer() {
  closing_.store(true);
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  close(listener_);
  SSL_CTX_free(context_);
}

std::vector<ServedRequest> ScriptedServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void ScriptedServer::AcceptLoop() {
  while (!closing_.load()) {
    pollfd wait{listener_, POLLIN, 0};
    if (poll(&wait, 1, 20) <= 0) continue;
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    const int number = connections_.fetch_add(1) + 1;
    threads_.emplace_back([this, fd, number] { Serve(fd, number); });
  }
}

void ScriptedServer::Serve(int fd, int number) {
  SSL* ssl = SSL_new(context_);
  SSL_set_fd(ssl, fd);
  if (SSL_accept(ssl) == 1) {
    ServedConnection connection(ssl, fd, closing_);
    std::string buffer;
    while (connection.open() && !closing_.load()) {
      pollfd wait{fd, POLLIN, 0};
      if (SSL_pending(ssl) == 0 && buffer.empty() && poll(&wait, 1, 20) <= 0) continue;
      ServedRequest request;
      request.connection = number;
      if (X509* peer = SSL_get1_peer_certificate(ssl)) {
        char name[128] = "";
        X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof name);
        request.client_name = name;
        X509_free(peer);
      }
      if (!ReadRequest(ssl, buffer, request)) break;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      handler_(request, connection);
    }
  }
  ERR_clear_error();
  SSL_free(ssl);
  close(fd);
}

}  // namespace quern::control::kube::testing
