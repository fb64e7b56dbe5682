#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "quern/kernels/machine_peak.h"
#include "runtime/base/cgroup.h"
#include "runtime/base/clock.h"
#include "runtime/base/thread_pool.h"
#include "runtime/eval.h"

namespace quern {
namespace {

using nlohmann::json;

// Of several runs. The best one is the limit; how far the median is below it tells how busy the
// machine was.
struct Rate {
  double best = 0;
  double median = 0;
};

// `work` per second of `body`, which all of the pool's threads run at once, a part each.
template <typename Body>
Rate Measure(ThreadPool& pool, int runs, double work, const Body& body) {
  std::vector<double> rates;
  for (int i = 0; i < runs; ++i) {
    const SteadyTime start = RealClock().Now();
    pool.ParallelFor(pool.threads(), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t part = begin; part < end; ++part) body(part);
    });
    rates.push_back(work / Seconds(RealClock().Now() - start).count());
  }
  std::sort(rates.begin(), rates.end());
  return {rates.back(), rates[rates.size() / 2]};
}

// Memory that is mapped anew: with pages of the usual size, or, if the system has some, huge ones.
class Pages {
 public:
  Pages(size_t bytes, bool huge)
      : bytes_(bytes),
        memory_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ != MAP_FAILED) madvise(memory_, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }
  ~Pages() {
    if (memory_ != MAP_FAILED) munmap(memory_, bytes_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  uint64_t* words() const {
    return memory_ == MAP_FAILED ? nullptr : static_cast<uint64_t*>(memory_);
  }

 private:
  size_t bytes_;
  void* memory_;
};

Result<Rate> MeasureReads(ThreadPool& pool, size_t bytes, int runs, bool huge) {
  const Pages pages(bytes, huge);
  if (pages.words() == nullptr) {
    return MakeError(ErrorCode::kResourceExhausted,
                     "no memory for {} MiB to read: give a smaller --mib", bytes >> 20);
  }
  const size_t words = bytes / sizeof(uint64_t);
  std::fill(pages.words(), pages.words() + words, 1);  // a page that was never written is no memory
  std::vector<uint64_t> sums(static_cast<size_t>(pool.threads()));
  const Rate rate = Measure(pool, runs, static_cast<double>(bytes), [&](int64_t part) {
    const size_t threads = sums.size();
    const auto at = static_cast<size_t>(part);
    const size_t begin = words / threads * at;
    const size_t end = at + 1 == threads ? words : words / threads * (at + 1);
    sums[at] = kernels::SumWords(pages.words() + begin, end - begin);
  });
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  if (total != words) return MakeError(ErrorCode::kInternal, "read {} words of {}", total, words);
  return rate;
}

Result<Rate> MeasurePeak(ThreadPool& pool, kernels::PeakKind kind, int runs) {
  constexpr int64_t kIterations = 1'000'000;  // some 5 to 15 milliseconds
  std::vector<kernels::PeakRun> done(static_cast<size_t>(pool.threads()));
  const double operations = static_cast<double>(kernels::RunPeakLoop(kind, 1).operations) *
                            static_cast<double>(kIterations) * pool.threads();
  const Rate rate = Measure(pool, runs, operations, [&](int64_t part) {
    done[static_cast<size_t>(part)] = kernels::RunPeakLoop(kind, kIterations);
  });
  for (const kernels::PeakRun& run : done) {
    if (run.sum * 2 != static_cast<double>(run.operations)) {
      return MakeError(ErrorCode::kInternal, "the {} loop did not do its operations",
                       kernels::PeakKindName(kind));
    }
  }
  return rate;
}

}  // namespace

Status RunLimits(const LimitsOptions& options) {
  ThreadPool pool(options.threads > 0 ? options.threads : DefaultThreads());
  json report = {{"threads", pool.threads()}};
  const auto add = [&](const std::string& name, const char* unit, const Rate& rate) {
    report[name] = {{"best", rate.best}, {"median", rate.median}};
    if (!options.as_json) {
      std::printf("%-12s %8.1f G%s/s   median of %d runs %5.1f %% of it\n", name.c_str(),
                  rate.best / 1e9, unit, options.runs, 100 * rate.median / rate.best);
      std::fflush(stdout);
    }
  };
  for (const bool huge : {false, true}) {
    QUERN_ASSIGN(const Rate rate,
                 MeasureReads(pool, static_cast<size_t>(options.mib) << 20, options.runs, huge));
    add(huge ? "read_huge" : "read", "B", rate);
  }
  for (const kernels::PeakKind kind : kernels::kAllPeakKinds) {
    if (!kernels::HasPeak(kind)) continue;
    QUERN_ASSIGN(const Rate rate, MeasurePeak(pool, kind, options.runs));
    add(std::string(kernels::PeakKindName(kind)), "op", rate);
  }
  if (options.as_json) std::printf("%s\n", report.dump().c_str());
  return {};
}

}  // namespace quern
