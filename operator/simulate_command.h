#pragma once

namespace quern::simulation {

// `quern-operator simulate`: argv[0] is that word. Returns the exit code: 0, 2 for a mistake in the
// options, the trace or the coefficients (told in one line on stderr), 1 where a result could not
// be written.
int SimulateCommand(int argc, const char* const* argv);

}  // namespace quern::simulation
