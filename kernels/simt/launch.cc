#include <cstdio>

#include "kernels/simt/machine.h"
#include "kernels/simt/runtime/scheduler.h"
#include "kernels/simt/simt.h"

namespace quern::simt {
void SetOptions(const Options& options) {
  const Lock lock = Scheduler::Get().Enter();
  Machine::Get().set_options(options);
}

Options GetOptions() {
  const Lock lock = Scheduler::Get().Enter();
  return Machine::Get().wanted_options();
}

Report Launch(const Kernel& kernel, Dim3 grid, Dim3 block, size_t dynamic_shared_bytes) {
  const Lock lock = Scheduler::Get().Enter();
  return Machine::Get().Run(kernel, grid, block, dynamic_shared_bytes);
}

const Report& LastReport() { return Machine::Get().report(); }

std::string Text(const Report& report) {
  const Counts& counts = report.counts;
  std::string text = report.kernel + ": " + std::to_string(counts.blocks) + " blocks, " +
                     std::to_string(counts.threads) + " threads\n";
  char line[200];
  const auto access = [&](const char* name, const AccessCounts& one, const char* unit) {
    std::snprintf(
        line, sizeof(line),
        "  %-14s %10lld instructions %12lld bytes %10lld %s, %.3f of the minimum\n", name,
        static_cast<long long>(one.instructions), static_cast<long long>(one.bytes),
        static_cast<long long>(one.units), unit,
        one.minimum == 0 ? 0.0 : static_cast<double>(one.units) / static_cast<double>(one.minimum));
    text += line;
  };
  access("global loads", counts.global_load, "sectors");
  access("global stores", counts.global_store, "sectors");
  access("shared loads", counts.shared_load, "wavefronts");
  access("shared stores", counts.shared_store, "wavefronts");
  const auto count = [&](const char* name, int64_t value) {
    std::snprintf(line, sizeof(line), "  %-30s %12lld\n", name, static_cast<long long>(value));
    text += line;
  };
  count("different global sectors", counts.global_sectors);
  count("watched global sectors read", counts.watched_sectors);
  count("mma.sync", counts.mma);
  count("ldmatrix", counts.ldmatrix);
  count("shuffles", counts.shuffles);
  count("votes, matches, reductions", counts.votes);
  count("warp barriers", counts.warp_barriers);
  count("block barriers", counts.block_barriers);
  count("atomics (of threads)", counts.atomics);
  count("fences (of threads)", counts.fences);
  count("cp.async (of threads)", counts.async_copies);
  return text;
}

}  // namespace quern::simt
