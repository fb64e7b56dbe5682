#include "runtime/gateway/stream_body.h"

#include <nlohmann/json.hpp>
#include <optional>

namespace quern::gateway {
namespace {

using Json = nlohmann::json;

// Looks for the member of the outermost object, and builds nothing.
class StreamMember : public nlohmann::json_sax<Json> {
 public:
  bool found() const { return value_; }

  bool null() override { return Scalar(false); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t) override { return Scalar(false); }
  bool number_unsigned(number_unsigned_t) override { return Scalar(false); }
  bool number_float(number_float_t, const string_t&) override { return Scalar(false); }
  bool string(string_t&) override { return Scalar(false); }
  bool binary(binary_t&) override { return Scalar(false); }
  bool start_object(size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (depth_ == 1) wanted_ = name == "stream";
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception&) override {
    value_ = false;
    return false;
  }

 private:
  bool Scalar(bool value) {
    if (depth_ == 1 && wanted_) value_ = value;
    return true;
  }
  bool Open() {
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }
  int depth_ = 0;
  bool wanted_ = false;
  bool value_ = false;
};

// Where the last event of `text` ends: after an empty line (WHATWG HTML, 9.2.5: lines end in CR LF,
// LF or CR). 0: none does.
size_t LastBoundary(std::string_view text) {
  for (size_t i = text.size(); i > 0; --i) {
    const std::string_view head = text.substr(0, i);
    if (head.ends_with("\n\n") || head.ends_with("\n\r\n") || head.ends_with("\r\r")) return i;
  }
  return 0;
}

}  // namespace

bool AsksForStream(std::string_view body) {
  const size_t first = body.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || body[first] != '{') return false;
  StreamMember member;
  Json::sax_parse(body, &member);
  return member.found();
}

std::string_view EventHold::Feed(std::string_view bytes) {
  const size_t before = held_.size();
  // The end may have begun in what came before: an empty line has four bytes at most.
  std::string seam = held_.substr(before - std::min<size_t>(before, 3));
  const size_t from_held = seam.size();
  size_t end = LastBoundary(bytes);
  if (end == 0) {
    seam += bytes.substr(0, 3);
    const size_t at = LastBoundary(seam);
    if (at > from_held) end = at - from_held;
  }
  if (end == 0 && before + bytes.size() <= max_held_) {
    held_ += bytes;
    return {};
  }
  if (end == 0) {  // too long to keep
    at_boundary_ = false;
    end = bytes.size();
  } else {
    at_boundary_ = true;
  }
  if (before == 0 && end == bytes.size()) return bytes;
  out_ = std::move(held_);
  out_ += bytes.substr(0, end);
  held_ = bytes.substr(end);
  return out_;
}

}  // namespace quern::gateway
