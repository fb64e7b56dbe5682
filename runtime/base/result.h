#pragma once

#include <fmt/format.h>

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace quern {

// What kind of failure an Error is: decides the exit code of a program, the HTTP status of a server
// and whether a controller tries again.
enum class ErrorCode {
  kInvalidArgument,    // the caller's input is wrong and will stay wrong
  kNotFound,           // the named thing does not exist
  kAlreadyExists,      // it exists already
  kConflict,           // somebody else changed it first
  kPermissionDenied,   // not allowed
  kResourceExhausted,  // a limit was met; may pass later
  kUnavailable,        // the other side cannot be reached or is not ready; may pass later
  kDeadlineExceeded,   // it took too long; may pass later
  kCancelled,          // the caller no longer wants it
  kUnsupported,        // well-formed, but this build or version cannot do it
  kDataLoss,           // bytes are truncated or contradict themselves
  kExpired,            // a resource version or cursor is too old (HTTP 410)
  kInternal,           // a bug of ours
};

// Stable lower-case name ("invalid_argument"), for logs and metrics.
const char* ErrorCodeName(ErrorCode code);

// An error that a person can act on: the message says what was wrong, where, and what would be
// right.
struct Error {  // NOLINT(clang-analyzer-core.uninitialized.Assign): a variant's other member
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // The same error, with where it happened put in front: "loading model.gguf: ...".
  Error Within(std::string_view where) && {
    message = fmt::format("{}: {}", where, message);
    return std::move(*this);
  }
};

template <typename... Args>
Error MakeError(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

// A value or an Error. Thread-safe as its contents are. Reading the side that is not there is a
// programming error and asserts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)  // NOLINT(google-explicit-constructor): implicit on purpose
      : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    assert(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    assert(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    assert(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    assert(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    assert(!ok());
    return std::get<1>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT: as above

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& {
    assert(!ok_);
    return error_;
  }
  Error&& error() && {
    assert(!ok_);
    return std::move(error_);
  }

 private:
  Error error_;
  bool ok_ = true;
};

using Status = Result<void>;

// Returns the error of `expr` from the enclosing function, if there is one.
#define QUERN_TRY(expr)                                      \
  do {                                                       \
    if (auto quern_try_status = (expr); !quern_try_status) { \
      return std::move(quern_try_status).error();            \
    }                                                        \
  } while (false)

#define QUERN_CONCAT_INNER(a, b) a##b
#define QUERN_CONCAT(a, b) QUERN_CONCAT_INNER(a, b)

// QUERN_ASSIGN(auto x, MaybeX()): x is the value, or the enclosing function returns the error.
#define QUERN_ASSIGN(declaration, expr) \
  QUERN_ASSIGN_IMPL(QUERN_CONCAT(quern_result_, __LINE__), declaration, expr)
// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
#define QUERN_ASSIGN_IMPL(name, declaration, expr) \
  auto name = (expr);                              \
  if (!name) return std::move(name).error();       \
  declaration = std::move(name).value()
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace quern
