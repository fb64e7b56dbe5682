#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quern/kernels/cpu_kernels.h"
#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/cpu_matrix.h"
#include "runtime/base/thread_pool.h"

namespace quern {

// Of a Q8_0 matrix in planes, what CpuMatrix::greatest_scales() says.
std::vector<float> GreatestScales(const kernels::PackedMatrix& matrix, ThreadPool& pool);

// The greatest logits of a few rows, without reading all of the head: kernels/head_screen.h says
// how, and why they are the ones. Keeps its buffers; not thread-safe.
class HeadScreen {
 public:
  // Rows at once from which on the whole product is faster, as its work is shared by rows and this
  // one's is not; and the most logits of a row that are looked for, for which much is read.
  static constexpr int64_t kMostRows = 2;
  static constexpr int32_t kMostRank = 128;

  explicit HeadScreen(const kernels::CpuKernels& kernels) : kernels_(kernels) {}

  // What was read beyond the upper halves counts so many times: it lies scattered. On Zen 5 a step
  // that read a tenth of a head so took as long as the whole product. If a step costs more than
  // that, the next ones take it: one, and then twice as many each time. Not of heads that stay in a
  // cache.
  static constexpr int64_t kScatteredCost = 5;
  static constexpr int64_t kLargeHeadBytes = int64_t{4} << 20;
  static constexpr int32_t kLongestPause = 64;

  // Whether so many rows of these ranks are its to do.
  static bool Takes(const CpuMatrix& head, int64_t rows, std::span<const int32_t> ranks);
  // logits [x.rows, head.rows()]: of each row the `ranks` greatest, and those as great as the last
  // of them, with the bits of the whole product; kNotAmongGreatest or their bits, the others.
  // False, and nothing done, where the whole product is to be taken: it has been faster, or x has
  // something that is no finite number, products might leave float32's range, or all are 0.
  bool Run(const CpuMatrix& head, const kernels::QuantizedActivations& x,
           std::span<const int32_t> ranks, ThreadPool& pool, float* logits);

  const HeadReads& reads() const { return reads_; }

 private:
  // Of a row of x.
  struct Row {
    kernels::ScreenArgs args;
    std::vector<int32_t> greatest, low_greatest;
    std::vector<float> half_range;
    std::vector<float> estimates;  // [tiles]
    std::vector<int32_t> order;    // [groups]
    float margin = 0;
    int32_t rank = 0;
  };

  // False as Run's.
  bool Prepare(const CpuMatrix& head, const kernels::QuantizedActivations& x, int64_t row,
               int32_t rank, float* y);
  // Computes the most promising columns: returns the threshold. Adds what it read to `bytes`.
  float FindThreshold(Row& row, ThreadPool& pool, int64_t* bytes);
  int64_t Refine(const Row& row, float threshold, int64_t tiles, ThreadPool& pool);

  // What a step read of a head decides whether the next ones pause.
  void Account(const CpuMatrix& head, int64_t rows, int64_t refined_bytes);

  const kernels::CpuKernels& kernels_;
  int32_t paused_ = 0;  // steps yet to come
  int32_t pause_ = 0;   // how long the last one was; 0: the last step was worth it
  std::vector<Row> rows_;
  std::vector<int64_t> promising_;
  std::vector<float> found_;
  HeadReads reads_;
};

}  // namespace quern
