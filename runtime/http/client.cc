#include "runtime/http/client.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "runtime/http/client_connection.h"

namespace quern::http {

// The kept connections. Those under way know it weakly: it goes with its HttpClient.
struct HttpClient::Pool {
  boost::asio::io_context& io;
  const ClientLimits limits;
  std::map<Address, std::vector<std::shared_ptr<ClientConnection>>> idle;

  void Keep(const std::shared_ptr<ClientConnection>& connection) {
    auto& kept = idle[connection->address()];
    if (kept.size() >= limits.max_idle) return connection->Close();
    kept.push_back(connection);
  }
  void Drop(const std::shared_ptr<ClientConnection>& connection) {
    const auto found = idle.find(connection->address());
    if (found == idle.end()) return;
    std::erase(found->second, connection);
    if (found->second.empty()) idle.erase(found);
  }
};

HttpClient::HttpClient(boost::asio::io_context& io, const ClientLimits& limits)
    : pool_(std::make_shared<Pool>(Pool{io, limits, {}})) {}

HttpClient::~HttpClient() {
  const auto idle = std::exchange(pool_->idle, {});
  for (const auto& [address, connections] : idle) {
    for (const auto& connection : connections) connection->Close();
  }
}

std::shared_ptr<Exchange> HttpClient::Begin(const Address& address,
                                            std::shared_ptr<const OutgoingRequest> request,
                                            std::shared_ptr<ResponseReceiver> receiver) {
  std::shared_ptr<ClientConnection> connection;
  if (const auto found = pool_->idle.find(address); found != pool_->idle.end()) {
    connection = found->second.back();
    pool_->Drop(connection);
  } else {
    const std::weak_ptr<Pool> weak = pool_;
    connection = std::make_shared<ClientConnection>(
        pool_->io, address, pool_->limits,
        [weak](const auto& idle) {
          const auto pool = weak.lock();
          pool ? pool->Keep(idle) : idle->Close();
        },
        [weak](const auto& closed) {
          if (const auto pool = weak.lock()) pool->Drop(closed);
        });
  }
  return connection->Begin(std::move(request), std::move(receiver));
}

void HttpClient::Forget(const Address& address) {
  const auto found = pool_->idle.find(address);
  if (found == pool_->idle.end()) return;
  const auto connections = std::exchange(found->second, {});
  pool_->idle.erase(found);
  for (const auto& connection : connections) connection->Close();
}

}  // namespace quern::http
