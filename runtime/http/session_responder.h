#pragma once

#include <boost/asio/post.hpp>
#include <memory>
#include <utility>

#include "runtime/http/responder.h"
#include "runtime/http/session.h"

namespace quern::http {

// The Responder of one request of a session. Once that request is answered, or the session closed,
// `number_` no longer is the session's and every call does nothing.
class Session::ResponderImpl : public Responder {
 public:
  ResponderImpl(std::shared_ptr<Session> session, uint64_t number)
      : session_(std::move(session)), number_(number) {}

  ~ResponderImpl() override {
    // May run on any thread.
    const auto strand = session_->socket_.get_executor();
    boost::asio::post(strand, [session = std::move(session_), number = number_] {
      if (session->request_number_ != number) return;
      if (session->stream_begun_) return session->Close();
      Response response;
      response.status = 500;
      response.body = session->context_->router->ErrorJson(
          500,
          "the request was given up without an answer; this is a fault of the "
          "server");
      session->Send(response);
    });
  }

  void Post(std::function<void()> task) override {
    boost::asio::post(session_->socket_.get_executor(), std::move(task));
  }
  void Send(Response response) override {
    if (!Done()) session_->Send(response);
  }
  void BeginStream(Response head) override {
    if (!Done()) session_->BeginStream(head);
  }
  void Write(std::string_view bytes) override {
    if (!Done()) session_->WriteChunk(bytes);
  }
  void Finish() override {
    if (!Done()) session_->FinishStream();
  }
  bool Writable() const override {
    return session_->UnsentBytes() < session_->context_->limits.stream_high_water;
  }
  bool Done() const override { return session_->request_number_ != number_; }
  void SetCallbacks(std::function<void()> writable, std::function<void()> gone) override {
    if (Done()) return;
    session_->on_writable_ = std::move(writable);
    session_->on_gone_ = std::move(gone);
  }

 private:
  std::shared_ptr<Session> session_;
  const uint64_t number_;
};

}  // namespace quern::http
