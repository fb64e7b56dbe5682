#pragma once

#include <span>
#include <string>

#include "runtime/bench/record.h"

namespace quern::bench {

// An SVG of two panels: the cumulative distributions of TTFT, ITL and E2E over a logarithmic axis
// of time, and TTFT and each request's mean ITL over the time at which it was to be sent. Of done
// requests. `title` is plain text.
std::string PlotSvg(std::span<const RequestRecord* const> records, const std::string& title);

}  // namespace quern::bench
