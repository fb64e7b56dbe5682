#pragma once

#include <string>
#include <string_view>
#include <vector>

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
// str.split() and str.rsplit(); `limit` < 0: all. `separator` is not empty.
std::vector<std::string> SplitSpaces(std::string_view text, int64_t limit);
std::vector<std::string> SplitAt(std::string_view text, std::string_view separator, int64_t limit);
std::vector<std::string> SplitAtFromRight(std::string_view text, std::string_view separator,
                                          int64_t limit);
std::vector<std::string> SplitLines(std::string_view text);

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
