#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern::http {

// A TCP client that sends exactly the bytes it is told to, for tests of what clients must not do
// too. Every wait ends after `kPatience` at the latest.
class RawClient {
 public:
  static constexpr std::chrono::seconds kPatience{20};

  // `receive_buffer`: SO_RCVBUF, small to be a slow reader; 0: the system's.
  explicit RawClient(uint16_t port, int receive_buffer = 0) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  // False if the server has closed.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Reads on until `received` contains `wanted` or the server closes; what has come so far.
  const std::string& ReadUntil(std::string_view wanted) {
    size_t from = 0;  // what was searched already is not searched again: answers may be large
    while (received.find(wanted, from) == std::string::npos) {
      from = received.size() < wanted.size() ? 0 : received.size() - wanted.size() + 1;
      if (!ReadSome()) break;
    }
    return received;
  }
  // Reads until the server closes.
  const std::string& ReadAll() {
    while (ReadSome()) {
    }
    return received;
  }
  // One response with a Content-Length, taken out of `received`.
  std::string ReadResponse() {
    ReadUntil("\r\n\r\n");
    const size_t head = received.find("\r\n\r\n");
    if (head == std::string::npos) return std::exchange(received, {});
    size_t length = 0;
    const size_t field = received.find("Content-Length: ");
    if (field < head) length = std::stoul(received.substr(field + 16));
    while (received.size() < head + 4 + length && ReadSome()) {
    }
    std::string response = received.substr(0, head + 4 + length);
    received.erase(0, response.size());
    return response;
  }
  // The server has closed the connection in an orderly way (and nothing more came before).
  bool ClosedByServer() {
    ReadAll();
    return closed_;
  }

  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void CloseSendingSide() { shutdown(fd_, SHUT_WR); }

  std::string received;

 private:
  bool ReadSome() {
    pollfd waiting{fd_, POLLIN, 0};
    const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(kPatience);
    if (poll(&waiting, 1, static_cast<int>(patience.count())) <= 0) return false;
    char buffer[64 * 1024];
    const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
    if (got <= 0) {
      closed_ = true;
      return false;
    }
    received.append(buffer, static_cast<size_t>(got));
    return true;
  }

  int fd_ = -1;
  bool connected_ = false;
  bool closed_ = false;
};

}  // namespace quern::http
