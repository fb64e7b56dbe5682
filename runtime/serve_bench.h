#pragma once

namespace quern {

// `quern-serve bench MODEL ...`: the engine's speed, without HTTP. `argv[0]` is the word "bench".
// Prints a table or JSON on stdout, what takes long and errors on stderr; returns the exit code.
int BenchMain(int argc, char** argv);

}  // namespace quern
