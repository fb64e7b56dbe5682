// What a replica answers, on its way through the gateway: however the bytes are cut, the same head
// and body come out; the events that go on are whole, and unchanged; and what is said of usage is
// found without reading beyond the end. Also request bodies that may ask for a stream.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/gateway/headers.h"
#include "runtime/gateway/stream_body.h"
#include "runtime/gateway/usage.h"
#include "runtime/http/response_parser.h"

namespace {

struct Answer {
  bool readable = true, done = false, has_head = false;
  quern::http::ReceivedHead head;
  std::string body;

  bool whole() const { return readable && done; }
};

Answer Read(std::string_view bytes, size_t piece) {
  quern::http::ResponseParser parser(/*of_head=*/false);
  Answer answer;
  for (size_t at = 0; at < bytes.size() && !answer.done; at += piece) {
    const auto progress = parser.Feed(bytes.substr(at, piece));
    if (!progress) {
      answer.readable = false;
      return answer;
    }
    if (progress->head) {
      if (answer.has_head) std::abort();
      answer.has_head = true;
      answer.head = *progress->head;
    }
    for (const std::string_view part : progress->body) answer.body += part;
    answer.done = progress->done;
  }
  if (!answer.done && parser.End().ok()) answer.done = true;
  return answer;
}

void CheckEvents(std::string_view body, size_t piece) {
  quern::gateway::EventHold hold(/*max_held=*/64);
  std::string out;
  for (size_t at = 0; at < body.size(); at += piece) out += hold.Feed(body.substr(at, piece));
  out += hold.Rest();
  if (out != body) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Answer whole = Read(bytes, std::max<size_t>(size, 1));
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    const Answer again = Read(bytes, piece);
    // What is no answer is found out sooner or later, or with the end of the bytes.
    if (again.whole() != whole.whole()) std::abort();
    if (whole.whole() && (again.head.headers != whole.head.headers || again.body != whole.body)) {
      std::abort();
    }
    CheckEvents(whole.body, piece);
    CheckEvents(bytes, piece);
  }
  if (whole.has_head) (void)quern::gateway::ResponseHeadOf(whole.head);
  quern::gateway::UsageTail tail;
  tail.Feed(bytes);
  if (const auto usage = tail.Find()) {
    if (usage->prompt_tokens < 0 || usage->generation_tokens < 0) std::abort();
  }
  (void)quern::gateway::AsksForStream(bytes);
  return 0;
}
