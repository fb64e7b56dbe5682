#include "tests/unit/kernels/simt/kernel_traffic.h"

#include <cstdio>

namespace quern::kernels::testing {
namespace {

void Print(const Operation& operation, const simt::Report& report, const LaunchBytes& bytes) {
  const simt::Counts& counts = report.counts;
  const auto number = [](const char* name, int64_t value) {
    std::printf(",\"%s\":%lld", name, static_cast<long long>(value));
  };
  std::printf("{\"op\":\"%s\",\"shape\":\"%s\",\"kernel\":\"%s\"", operation.name.c_str(),
              operation.shape.c_str(), report.kernel.c_str());
  number("batch", operation.batch);
  number("threads", static_cast<int64_t>(report.block.count()));
  number("blocks", static_cast<int64_t>(report.grid.count()));
  number("dynamic_shared", static_cast<int64_t>(report.dynamic_shared_bytes));
  number("bulk_bytes", bytes.bulk);
  number("read_bytes", bytes.read);
  number("written_bytes", bytes.written);
  number("bulk_load_bytes", counts.watched_sectors * 32);
  number("load_bytes", counts.global_load.units * 32);
  number("store_bytes", counts.global_store.units * 32);
  number("shared_wavefronts", counts.shared_load.units + counts.shared_store.units);
  number("least_wavefronts", counts.shared_load.minimum + counts.shared_store.minimum);
  number("mma", counts.mma);
  std::printf("}\n");
}

int Main(int argc, char** /*argv*/) {
  if (argc != 1) Die("kernel_traffic takes no arguments");
  ShowProducts();
  ShowAttention();
  ShowElementwise();
  ShowChoices();
  return 0;
}

}  // namespace

void Show(const Operation& operation, const std::function<std::string()>& start) {
  std::vector<simt::Report> reports;
  simt::SetOptions({.seed = 0,
                    .resident_blocks = 2,
                    .count_traffic = true,
                    .watched = operation.bulk,
                    .on_kernel = [&](const simt::Report& report) { reports.push_back(report); }});
  const std::string wrong = start();
  if (!wrong.empty()) Die(operation.name + " " + operation.shape + ": " + wrong);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  simt::SetOptions({});
  if (reports.size() != operation.launches.size()) {
    Die(operation.name + " " + operation.shape + ": " + std::to_string(reports.size()) +
        " launches; " + std::to_string(operation.launches.size()) + " are described");
  }
  for (size_t i = 0; i < reports.size(); ++i) Print(operation, reports[i], operation.launches[i]);
}

}  // namespace quern::kernels::testing

int main(int argc, char** argv) { return quern::kernels::testing::Main(argc, argv); }
