#include "runtime/bench/client/http_client.h"

namespace quern::bench {
namespace {

// Keeps an answer.
class Collector : public ResponseHandler {
 public:
  Collector(HttpClient& client, size_t max_bytes) : client_(client), max_bytes_(max_bytes) {}

  void OnHead(int status, std::string_view server) override {
    answer_.status = status;
    answer_.server = server;
  }
  Status OnBody(std::string_view bytes) override {
    if (answer_.body.size() + bytes.size() > max_bytes_) {
      return MakeError(ErrorCode::kDataLoss, "the answer has more than {} bytes", max_bytes_);
    }
    answer_.body += bytes;
    return {};
  }
  void OnEnd(const Status& status) override {
    status_ = status;
    client_.Stop();
  }
  Result<HttpAnswer> Take() {
    if (!status_.ok()) return status_.error();
    return std::move(answer_);
  }

 private:
  HttpClient& client_;
  const size_t max_bytes_;
  HttpAnswer answer_;
  Status status_;
};

}  // namespace

Result<HttpAnswer> Fetch(HttpClient& client, const HttpRequest& request, size_t max_bytes) {
  const auto collector = std::make_shared<Collector>(client, max_bytes);
  client.Send(request, collector);
  client.Run();
  return collector->Take();
}

}  // namespace quern::bench
