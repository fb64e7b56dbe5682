#pragma once

#include <spdlog/spdlog.h>

#include <string>

#include "runtime/base/result.h"

namespace quern {

// Sets up the process's log: one line per event on stderr, "time level message key=value ...".
// `level`: trace, debug, info, warn, error. `format`: text, or json (one object a line). Call once,
// from main, before other threads start. Errors: kInvalidArgument for a level or format that does
// not exist. Log with spdlog::info("...", ...), from any thread.
Status InitLog(const std::string& program, const std::string& level, const std::string& format);

}  // namespace quern
