#include "runtime/command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "runtime/base/near_name.h"

namespace quern {
namespace {

// A check of the text as a T from `low` to `high`; `wanted` is what it must be.
template <typename T>
CLI::Validator InRange(T low, T high, const std::string& wanted) {
  const auto check = [low, high, wanted](const std::string& text) -> std::string {
    T value{};
    if (CLI::detail::lexical_cast(text, value) && value >= low && value <= high) return "";
    return fmt::format("'{}' must be {}", text, wanted);
  };
  std::ostringstream description;
  description << CLI::detail::type_name<T>() << " in [" << low << " - " << high << "]";
  return {check, description.str(), ""};
}

bool IsGiven(std::string_view option, std::span<const char* const> arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [option](std::string_view argument) {
    return argument.starts_with(option) &&
           (argument.size() == option.size() || argument[option.size()] == '=');
  });
}

// "--port: why" -> "QUERN_PORT: why" where the value came from there.
std::string AsGiven(const CLI::App& app, std::string text, std::span<const char* const> arguments) {
  const std::string name = text.substr(0, text.find(':'));
  const CLI::Option* option = app.get_option_no_throw(name);
  if (option == nullptr || option->get_envname().empty() || IsGiven(name, arguments)) return text;
  // A positional one has no name on the command line.
  if (option->get_positional()) return text;
  return option->get_envname() + text.substr(name.size());
}

// "--ctx_size" is "--ctx-size", and "-c4096" is "-c" with its value.
bool IsCalled(std::string given, const ForeignOption& option) {
  std::replace(given.begin(), given.end(), '_', '-');
  if (given == option.name) return true;
  return !option.name.starts_with("--") && given.starts_with(option.name) &&
         std::isalpha(static_cast<unsigned char>(given[option.name.size()])) == 0;
}

std::string UnknownOption(const CLI::App& app, const std::string& name,
                          std::span<const ForeignOption> foreign) {
  for (const ForeignOption& other : foreign) {
    if (IsCalled(name, other))
      return fmt::format("{}: there is no such option; {}", name, other.advice);
  }
  std::set<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& long_name : option->get_lnames()) known.insert("--" + long_name);
  }
  const std::string* meant = name.starts_with("--") ? NearestName(name, known) : nullptr;
  return fmt::format("{}: there is no such option{}", name,
                     meant ? fmt::format("; did you mean {}?", *meant) : "");
}

std::string NameIn(std::string_view argument) {
  return std::string(argument.substr(0, argument.find('=')));
}

std::string UnexpectedArguments(const CLI::App& app, std::span<const ForeignOption> foreign) {
  const std::vector<std::string> unexpected = app.remaining();
  for (const std::string& argument : unexpected) {
    if (argument.size() < 2 || argument[0] != '-') continue;
    return UnknownOption(app, NameIn(argument), foreign);
  }
  return fmt::format("one argument too many: {}", fmt::join(unexpected, " "));
}

// What CLI11 says of the number of an option's values.
std::string WrongCount(std::string text) {
  const std::string name = text.substr(0, text.find(':'));
  if (text.find("At Most") != std::string::npos) {
    return fmt::format("{}: is given more than once; give it once", name);
  }
  if (text.ends_with(" missing")) return fmt::format("{}: its value is missing", name);
  return text;
}

std::string Missing(const CLI::App& app, const std::string& text) {
  const std::string name = text.substr(0, text.find(" is required"));
  const CLI::Option* option = app.get_option_no_throw(name);
  if (option == nullptr) return text;
  return fmt::format("{} is missing{}: {}", name,
                     option->get_envname().empty() ? "" : ", and so is " + option->get_envname(),
                     option->get_description());
}

}  // namespace

CLI::Validator WholeNumber(int64_t low, int64_t high) {
  return InRange(low, high, fmt::format("a whole number from {} to {}", low, high));
}

CLI::Validator NumberIn(double low, double high) {
  return InRange(low, high, fmt::format("a number from {} to {}", low, high));
}

CLI::Validator OneOf(const std::vector<std::string>& words) {
  const auto check = [words](const std::string& text) -> std::string {
    if (std::find(words.begin(), words.end(), text) != words.end()) return "";
    return fmt::format("'{}' must be {}", text, fmt::join(words, " or "));
  };
  return {check, fmt::format("{{{}}}", fmt::join(words, ",")), ""};
}

std::string ExplainError(const CLI::App& app, const CLI::ParseError& error, int argc,
                         const char* const* argv, std::span<const ForeignOption> foreign) {
  const std::span arguments(argv, static_cast<size_t>(std::max(argc, 0)));
  switch (static_cast<CLI::ExitCodes>(error.get_exit_code())) {
    case CLI::ExitCodes::ExtrasError:
      return UnexpectedArguments(app, foreign);
    case CLI::ExitCodes::RequiredError:
      return Missing(app, error.what());
    case CLI::ExitCodes::ArgumentMismatch:
      return WrongCount(error.what());
    default:
      return AsGiven(app, error.what(), arguments);
  }
}

std::optional<std::string> NoHelp(const CLI::App& app, int argc, const char* const* argv,
                                  std::span<const ForeignOption> foreign) {
  const std::span arguments(argv, static_cast<size_t>(std::max(argc, 0)));
  const char* like_help = nullptr;
  for (const std::string_view argument : arguments) {
    if (argument == "-h" || argument == "--help" || argument == "--version") return std::nullopt;
    if (!like_help && argument.starts_with("-h")) like_help = argument.data();
  }
  if (!like_help) return std::nullopt;
  return UnknownOption(app, NameIn(like_help), foreign);
}

void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace quern
