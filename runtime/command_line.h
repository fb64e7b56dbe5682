#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// What the programs' main files have in common, above all of their command lines: checks and errors
// that say which option, as it was given, which value, and what would be right.
namespace quern {

// Checks of an option's text, for CLI::Option::check. They are also said in --help.
CLI::Validator WholeNumber(int64_t low, int64_t high);
CLI::Validator NumberIn(double low, double high);
CLI::Validator OneOf(const std::vector<std::string>& words);

// An option of another program, and what to say of it: {"--ctx-size", "use --max-context-tokens"}.
struct ForeignOption {
  std::string_view name;
  std::string_view advice;
};

// The error on one line. An option whose value came from its environment variable is called by that
// name; one that does not exist is looked up in `foreign`, then among names that are nearly alike.
std::string ExplainError(const CLI::App& app, const CLI::ParseError& error, int argc,
                         const char* const* argv, std::span<const ForeignOption> foreign = {});

// The error where help is given only because CLI11 reads an option such as "-hf" as "-h -f".
std::optional<std::string> NoHelp(const CLI::App& app, int argc, const char* const* argv,
                                  std::span<const ForeignOption> foreign);

// As many open files as the system allows: a connection is one, and the usual limit is 1024.
void RaiseFileLimit();

}  // namespace quern
