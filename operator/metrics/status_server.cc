#include "operator/metrics/status_server.h"

#include <cpprest/http_listener.h>

namespace quern::control {

using web::http::experimental::listener::http_listener;

struct StatusServer::Impl {
  Pages pages;
  http_listener listener;
};

namespace {

// "HOST:PORT" with a port of 1 to 65535.
Status CheckAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon != std::string::npos && colon > 0 && address.size() - colon <= 6) {
    for (size_t i = colon + 1; i < address.size(); ++i) {
      if (address[i] < '0' || address[i] > '9')
        return MakeError(ErrorCode::kInvalidArgument, "'{}' has no port", address);
      port = port * 10 + (address[i] - '0');
    }
  }
  if (port < 1 || port > 65535) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}' is no address to listen on; write 0.0.0.0:8080", address);
  }
  return {};
}

}  // namespace

StatusServer::StatusServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<StatusServer>> StatusServer::Start(const std::string& address, Pages pages) {
  QUERN_TRY(CheckAddress(address));
  try {
    auto impl = std::make_unique<Impl>(Impl{std::move(pages), http_listener("http://" + address)});
    const Pages* known = &impl->pages;
    impl->listener.support(web::http::methods::GET, [known](web::http::http_request request) {
      const auto page = known->find(request.relative_uri().path());
      if (page == known->end()) {
        request.reply(404, "no such page\n", "text/plain");
        return;
      }
      const StatusPage made = page->second();
      request.reply(static_cast<web::http::status_code>(made.status), made.body, made.content_type);
    });
    impl->listener.open().wait();
    return std::unique_ptr<StatusServer>(new StatusServer(std::move(impl)));
  } catch (const std::exception& e) {
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}: {}", address, e.what());
  }
}

StatusServer::~StatusServer() {
  try {
    impl_->listener.close().wait();
  } catch (const std::exception&) {
    // It was not open any more.
  }
}

}  // namespace quern::control
