#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "runtime/gateway/errors.h"
#include "runtime/gateway/gateway.h"
#include "runtime/gateway/stream_body.h"
#include "runtime/gateway/usage.h"
#include "runtime/http/client.h"
#include "runtime/http/responder.h"

namespace quern::gateway {

// One request of a client, from its arrival to the end of its answer. Waits, perhaps with signs of
// life; goes to a replica, to another one where the first was not there; passes the answer on as it
// comes. On the loop's thread.
class Relay : public http::ResponseReceiver, public std::enable_shared_from_this<Relay> {
 public:
  Relay(Gateway& gateway, uint64_t number, const http::Request& request, std::string body,
        http::ResponderPtr responder);

  void Start();
  uint64_t number() const { return number_; }
  SteadyTime arrived() const { return arrived_; }
  size_t body_bytes() const { return body_bytes_; }
  const std::set<http::Address>& tried() const { return tried_; }
  bool was_let_in() const { return was_let_in_; }

  // It has a place in the waiting room.
  void BeginWaiting();
  // A replica was picked for it.
  void Send(const http::Address& address);
  // Ends it: with the error as its answer, or within the stream that has begun.
  void Fail(const GatewayError& error);
  // As if the client had left.
  void Drop();

 private:
  void OnSending() override;
  void OnHead(const http::ReceivedHead& head) override;
  bool OnBody(std::string_view bytes) override;
  void OnEnd(std::optional<http::ExchangeError> error) override;

  bool WantsStream();
  void Comment();
  void StopWaiting();
  void OnFault(const http::ExchangeError& error);
  void Complete();
  void LearnUsage();
  void Release();      // the replica
  void ReleaseBody();  // it need not be sent again
  void End();

  Gateway& gateway_;
  const uint64_t number_;
  const SteadyTime arrived_;
  std::shared_ptr<const http::OutgoingRequest> request_;  // null: it need not be sent again
  const size_t body_bytes_;
  http::ResponderPtr responder_;  // null: it has ended
  std::optional<bool> wants_stream_;
  size_t held_bytes_ = 0;

  // Waiting
  http::Timer comment_;
  std::optional<SteadyTime> waiting_since_;
  SteadyTime::duration waited_{};
  bool was_let_in_ = false;

  // At a replica
  std::optional<http::Address> address_;
  std::shared_ptr<http::Exchange> exchange_;
  std::set<http::Address> tried_;
  SteadyTime sent_at_;
  int attempts_ = 0;
  bool resent_ = false;  // after it had reached a replica
  bool overhead_told_ = false;

  // The answer
  bool begun_ = false;       // a stream to the client
  bool events_ = false;      // of events
  bool bodiless_ = false;    // it is sent at its end
  bool collecting_ = false;  // an error's body, for a stream that had begun with signs of life
  http::Response head_;
  std::string error_body_;
  EventHold hold_;
  UsageTail usage_;
};

}  // namespace quern::gateway
