#include "runtime/bench/client/load.h"

#include <algorithm>

#include "runtime/bench/sse.h"

namespace quern::bench {
namespace {

constexpr int64_t kMaxGaps = 20'000'000;  // kept of a run: 80 MB
constexpr size_t kMaxEventBytes = size_t{1} << 20;
constexpr size_t kMaxErrorBytes = 4096;

}  // namespace

Refusal RefusalOf(int status) {
  switch (status) {
    case 401:
    case 403:
    case 404:
    case 405:
      return Refusal::kRefusesAll;
    case 408:  // it came too slowly
    case 425:
    case 429:
      return Refusal::kNone;
    default:
      return status >= 400 && status < 500 ? Refusal::kRefusesIt : Refusal::kNone;
  }
}

// What comes of one request.
class LoadRun::Answer : public ResponseHandler {
 public:
  Answer(LoadRun& run, RequestRecord& record)
      : run_(run), record_(record), events_(kMaxEventBytes) {}

  void OnHead(int status, std::string_view /*server*/) override { status_ = status; }

  Status OnBody(std::string_view bytes) override {
    if (status_ != kStatusOk) {
      error_body_ += bytes.substr(0, kMaxErrorBytes - std::min(kMaxErrorBytes, error_body_.size()));
      return {};
    }
    const double now = run_.Now();
    Status status;
    const auto fed = events_.Feed(bytes, [&](std::string_view data) {
      if (status.ok()) status = OnEvent(data, now);
    });
    if (!fed.ok()) return Named("an event too long", fed.error().message);
    return status;
  }

  void OnEnd(const Status& status) override {
    record_.end = run_.Now();
    if (!status.ok() && status.error().code == ErrorCode::kCancelled) {
      record_.outcome = Outcome::kCancelled;
    } else if (!status.ok()) {
      Fail(status.error().message, message_);
    } else if (status_ != kStatusOk) {
      Fail(fmt::format("status {}", status_), ReadErrorMessage(error_body_));
      run_.Refused(status_, message_);
    } else if (!done_) {
      Fail(any_event_ ? "stream without an end" : "no event stream", "");
    } else {
      record_.outcome = Outcome::kDone;
    }
    run_.Ended(record_, message_);
  }

 private:
  // `kind` is what errors are counted by; `message` is said once.
  Status Named(const char* kind, const std::string& message) {
    message_ = message;
    return MakeError(ErrorCode::kDataLoss, "{}", kind);
  }
  void Fail(const std::string& kind, const std::string& message) {
    record_.outcome = Outcome::kFailed;
    record_.error = kind;
    message_ = message;
  }

  Status OnEvent(std::string_view data, double now) {
    auto event = ReadStreamEvent(data);
    if (!event) return Named("an event that is no JSON", event.error().message);
    if (!event->error.empty()) return Named("an error in the stream", event->error);
    any_event_ = true;
    run_.answered_ = true;
    done_ = done_ || event->done || event->finished;
    if (event->usage) record_.usage = *event->usage;
    if (run_.fingerprint_.empty()) run_.fingerprint_ = std::move(event->fingerprint);
    if (!event->has_text) return {};
    ++run_.progress_.text_events;
    if (record_.text_events++ == 0) {
      record_.first_text = now;
    } else if (run_.gaps_kept_ < kMaxGaps) {
      record_.gaps.push_back(static_cast<float>(now - record_.last_text));
      ++run_.gaps_kept_;
    }
    record_.last_text = now;
    return {};
  }

  LoadRun& run_;
  RequestRecord& record_;
  SseParser events_;
  int status_ = 0;
  bool any_event_ = false, done_ = false;
  std::string error_body_, message_;
};

LoadRun::LoadRun(HttpClient& client, Plan& plan, const PromptMaker& prompts,
                 const LoadOptions& options, std::function<void(const Progress&)> on_progress)
    : client_(client),
      plan_(plan),
      prompts_(prompts),
      options_(options),
      on_progress_(std::move(on_progress)) {}

LoadRun::~LoadRun() { *alive_ = false; }

void LoadRun::Run() {
  start_ = RealClock().Now();
  next_ = plan_.Next();
  if (!next_) return;
  WatchProgress();
  SendDue();
  client_.Run();
}

// Sends what is due and has room, and sees to it that it is called again.
void LoadRun::SendDue() {
  while (next_ && !interrupted_ && !refusal_ && progress_.in_flight < options_.max_in_flight) {
    const double now = Now();
    if (options_.closed_loop && options_.duration > 0 && now >= options_.duration) {
      next_.reset();
      break;
    }
    if (next_->at > now) {
      if (timer_set_) return;
      timer_set_ = true;
      const auto at = start_ + std::chrono::duration_cast<SteadyTime::duration>(Seconds(next_->at));
      client_.At(at, [this, alive = alive_] {
        if (!*alive) return;
        timer_set_ = false;
        SendDue();
      });
      return;
    }
    Send(*next_, now);
    next_ = static_cast<int64_t>(records_.size()) < kMaxRequests ? plan_.Next() : std::nullopt;
  }
  if ((!next_ || interrupted_ || refusal_) && progress_.in_flight == 0 && !over_) {
    over_ = true;
    client_.Stop();
  }
}

void LoadRun::Send(const PlannedRequest& request, double now) {
  RequestRecord& record = records_.emplace_back();
  record.index = request.index;
  record.wanted_prompt = request.prompt_tokens;
  record.wanted_output = request.output_tokens;
  record.scheduled = options_.closed_loop ? now : request.at;
  record.sent = now;
  ++progress_.in_flight;
  HttpRequest http;
  http.target = options_.target;
  http.body = StreamBody(options_.body, prompts_.Make(request), request.output_tokens);
  client_.Send(http, std::make_shared<Answer>(*this, record));
}

void LoadRun::Ended(const RequestRecord& record, const std::string& message) {
  --progress_.in_flight;
  if (record.outcome == Outcome::kDone) ++progress_.done;
  if (record.outcome == Outcome::kFailed) {
    ++progress_.failed;
    first_messages_.try_emplace(record.error, message);
  }
  SendDue();
}

void LoadRun::Refused(int status, const std::string& message) {
  const Refusal refusal = RefusalOf(status);
  if (refusal_ || refusal == Refusal::kNone || answered_) return;
  if (refusal == Refusal::kRefusesIt && options_.count_refusals) return;
  refusal_ = fmt::format("status {}{}{}", status, message.empty() ? "" : ": ", message);
  // Not from within the handler of one of those that are cancelled.
  client_.At(RealClock().Now(), [this, alive = alive_] {
    if (*alive && !over_) client_.CancelAll();
  });
}

void LoadRun::Interrupt() {
  interrupted_ = true;
  if (progress_.in_flight > 0) {
    client_.CancelAll();
  } else {
    SendDue();
  }
}

void LoadRun::WatchProgress() {
  if (!on_progress_) return;
  const auto every = std::chrono::duration_cast<SteadyTime::duration>(options_.progress_every);
  client_.At(RealClock().Now() + every, [this, alive = alive_] {
    if (!*alive || over_) return;
    progress_.seconds = Now();
    on_progress_(progress_);
    WatchProgress();
  });
}

std::vector<const RequestRecord*> LoadRun::records() const {
  std::vector<const RequestRecord*> all;
  for (const RequestRecord& record : records_) all.push_back(&record);
  return all;
}

}  // namespace quern::bench
