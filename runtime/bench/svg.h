#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <utility>

namespace quern::bench {

// Puts a drawing together, line by line. Coordinates are in pixels from the upper left.
class Svg {
 public:
  Svg(double width, double height) {
    Add(R"(<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" )"
        R"(viewBox="0 0 {0} {1}" font-family="sans-serif" font-size="12">)"
        R"(<rect width="100%" height="100%" fill="white"/>)",
        width, height);
  }
  template <typename... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  // `anchor`: start, middle or end. Of `text`, what is not printable ASCII is left out.
  void Text(double x, double y, const char* anchor, const std::string& text) {
    Add(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x, y, anchor, Escape(text));
  }
  void Line(double x1, double y1, double x2, double y2) {
    Add(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="#ccc"/>)", x1, y1, x2, y2);
  }
  // The whole drawing; nothing can be added after it.
  std::string Take() {
    Add("</svg>");
    return std::move(text_);
  }

 private:
  static std::string Escape(const std::string& text) {
    std::string safe;
    for (const char c : text) {
      if (c == '<') {
        safe += "&lt;";
      } else if (c == '&') {
        safe += "&amp;";
      } else if (static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f) {
        safe += c;
      }
    }
    return safe;
  }

  std::string text_;
};

}  // namespace quern::bench
