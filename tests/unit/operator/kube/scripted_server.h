#pragma once

#include <openssl/ssl.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace quern::control::kube::testing {

// A certificate authority made for one test, and what it has signed. PEM.
struct TestCertificates {
  std::string ca;
  std::string server_certificate, server_key;  // for 127.0.0.1 and localhost
  std::string client_certificate, client_key;
};
TestCertificates MakeTestCertificates();
// A server certificate of the same authority for this DNS name only.
void UseServerName(TestCertificates& certificates, const std::string& name);

struct ServedRequest {
  std::string method;
  std::string target;                          // path with query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  int connection = 0;       // counted from 1: tells keep-alive from a new connection
  std::string client_name;  // common name of the client's certificate
};

// One connection, as a script for the server sees it.
class ServedConnection {
 public:
  ServedConnection(SSL* ssl, int fd, std::atomic<bool>& closing)
      : ssl_(ssl), fd_(fd), closing_(closing) {}

  void Write(const std::string& bytes);
  void Answer(int status, const std::string& body, const std::string& extra_headers = "");
  void BeginChunked(int status = 200);
  void Chunk(const std::string& bytes);
  void EndChunks() { Write("0\r\n\r\n"); }
  // The connection ends here: in good order, or by a TCP reset.
  void Close() { open_ = false; }
  void Reset();
  // Says nothing more, until the client leaves or the server is shut down.
  void Stall();
  bool open() const { return open_; }

 private:
  SSL* ssl_;
  int fd_;
  std::atomic<bool>& closing_;
  bool open_ = true;
};

// An HTTPS server on loopback whose every answer a test scripts, faults included.
class ScriptedServer {
 public:
  using Handler = std::function<void(const ServedRequest&, ServedConnection&)>;

  ScriptedServer(const TestCertificates& certificates, Handler handler,
                 bool ask_client_certificate = false);
  ~ScriptedServer();

  std::string url() const { return "https://127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  std::vector<ServedRequest> requests() const;
  int connections() const { return connections_.load(); }

 private:
  void AcceptLoop();
  void Serve(int fd, int number);

  Handler handler_;
  SSL_CTX* context_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> closing_{false};
  std::atomic<int> connections_{0};
  mutable std::mutex mutex_;
  std::vector<ServedRequest> requests_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace quern::control::kube::testing
