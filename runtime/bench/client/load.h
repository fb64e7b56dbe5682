#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/bench/client/http_client.h"
#include "runtime/bench/plan.h"
#include "runtime/bench/prompts.h"
#include "runtime/bench/record.h"
#include "runtime/bench/request_body.h"

namespace quern::bench {

inline constexpr int64_t kMaxRequests = 1'000'000;  // of one run: all are remembered

struct LoadOptions {
  std::string target;  // path of the endpoint
  BodyOptions body;
  bool closed_loop = true;
  int32_t max_in_flight = 1;  // of a closed loop: kept; of an open one: never exceeded
  double duration = 0;        // seconds after which a closed loop sends no more; 0: none
  Seconds progress_every{1};
  // Requests that the server finds wrong are counted as failed; else one ends the run while none
  // has been answered. That nothing of the kind is served (kRefusesAll) always does until then.
  bool count_refusals = false;
};

// What a status says of the requests that are like the one it answers.
enum class Refusal {
  kNone,        // none, or for now: too many requests, a fault of the server
  kRefusesIt,   // the request is wrong: too long, a parameter that is not known
  kRefusesAll,  // the key, the model or the path is
};
Refusal RefusalOf(int status);

struct Progress {
  double seconds = 0;
  int64_t done = 0, failed = 0;
  int32_t in_flight = 0;
  int64_t text_events = 0;
};

// One run of a plan against a server. Not thread-safe; used once.
class LoadRun {
 public:
  // All outlive the run; `on_progress` may be empty.
  LoadRun(HttpClient& client, Plan& plan, const PromptMaker& prompts, const LoadOptions& options,
          std::function<void(const Progress&)> on_progress);
  ~LoadRun();

  // Sends the plan's requests and returns when all have ended, or at a refusal. Interrupt, within
  // the client's loop, cancels those under way and sends no more.
  void Run();
  void Interrupt();

  bool interrupted() const { return interrupted_; }
  // What the server said to the request that ended the run; nothing where none did.
  const std::optional<std::string>& refusal() const { return refusal_; }
  // In the order in which they were sent; all have ended.
  std::vector<const RequestRecord*> records() const;
  // Of each kind of error, what the server said the first time.
  const std::map<std::string, std::string>& first_messages() const { return first_messages_; }
  // system_fingerprint of the answers; empty: none.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  class Answer;  // one request's ResponseHandler

  double Now() const { return Seconds(RealClock().Now() - start_).count(); }
  void SendDue();
  void Send(const PlannedRequest& request, double now);
  void Ended(const RequestRecord& record, const std::string& message);
  // Whether that ends the run.
  void Refused(int status, const std::string& message);
  void WatchProgress();

  HttpClient& client_;
  Plan& plan_;
  const PromptMaker& prompts_;
  const LoadOptions options_;
  const std::function<void(const Progress&)> on_progress_;

  SteadyTime start_;
  std::optional<PlannedRequest> next_;
  bool timer_set_ = false;  // for next_
  bool interrupted_ = false;
  std::optional<std::string> refusal_;
  bool answered_ = false;  // some request, by an event that is no error
  bool over_ = false;
  std::deque<RequestRecord> records_;  // their addresses stay
  int64_t gaps_kept_ = 0;
  Progress progress_;
  std::map<std::string, std::string> first_messages_;
  std::string fingerprint_;
  // For the timers that are left when the run is over.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace quern::bench
