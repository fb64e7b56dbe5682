#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace quern::jinja {

// Python's str, on UTF-8. What is not UTF-8 counts byte by byte. Case is ASCII's: letters beyond it
// stay as they are.

// std::string::find, in time that is linear even for a part that almost fits everywhere.
size_t FindText(std::string_view text, std::string_view part, size_t from = 0);
// The same from the end.
size_t FindTextFromRight(std::string_view text, std::string_view part);
// Takes the first character of a text, which is not empty.
std::string_view TakeCharacter(std::string_view* text);
size_t CountCharacters(std::string_view text);
// str.isspace() of one character.
bool IsSpaceCharacter(std::string_view character);

// str.strip(), with `left` and `right` saying at which ends: white space, or the characters in
// `set`.
std::string Strip(std::string_view text, bool left, bool right, const std::string* set = nullptr);
// str.split() and str.rsplit(), which hand over one part after the other, rsplit() from the last to
// the first; `limit` < 0: all. `separator` is not empty.
using TakePart = std::function<void(std::string_view part)>;
void SplitSpaces(std::string_view text, int64_t limit, const TakePart& take);
void SplitAt(std::string_view text, std::string_view separator, int64_t limit,
             const TakePart& take);
void SplitAtFromRight(std::string_view text, std::string_view separator, int64_t limit,
                      const TakePart& take);
void SplitLines(std::string_view text, const TakePart& take);

bool IsLetter(char c);
std::string Upper(std::string text);
std::string Lower(std::string text);
std::string Capitalize(std::string text);
std::string TitleMethod(std::string text);  // str.title(): every run of letters is a word
std::string TitleFilter(std::string text);  // Jinja's: words begin behind blanks and brackets

std::string EscapeHtml(std::string_view text);
// repr() of a text.
void AppendQuoted(std::string_view text, std::string& out);

}  // namespace quern::jinja
