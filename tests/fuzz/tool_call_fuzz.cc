// A model's text as calls and content: the same however it is cut, and nothing that was not offered
// is called.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/server/tool_call_stream.h"

namespace {

using quern::server::ToolCallEvent;

std::string Read(std::string_view text, size_t piece, bool parallel) {
  quern::server::ToolCallStream stream({"f", "get"}, parallel);
  std::vector<ToolCallEvent> events;
  for (size_t at = 0; at < text.size(); at += piece) stream.Push(text.substr(at, piece), events);
  stream.Finish(events);
  std::string joined;
  size_t calls = 0;
  for (const ToolCallEvent& event : events) {
    if (event.kind == ToolCallEvent::Kind::kCall) {
      if (event.text != "f" && event.text != "get") abort();
      ++calls;
      joined += '\0';
    }
    if (event.kind == ToolCallEvent::Kind::kArguments && calls == 0) abort();
    joined += event.text;
  }
  if (calls != stream.num_calls() || (!parallel && calls > 1)) abort();
  return joined;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const bool parallel = data[0] < 128;
  if (Read(text, 1 + data[0] % 40, parallel) != Read(text, text.size() + 1, parallel)) abort();
  return 0;
}
