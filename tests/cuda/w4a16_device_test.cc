// W4A16MatMul on a GPU against float64 sums over the weights as UnpackW4Row gives them: fresh
// random inputs, ragged shapes, poisoned outputs, every shape of the kernel. `--small` leaves out
// what is too large for compute-sanitizer; `--seed N` repeats a run.

#include <algorithm>
#include <cmath>

#include "kernels/cuda/w4a16/w4a16_plan.h"
#include "tests/cuda/matmul_test_support.h"

namespace quern::kernels::testing {
namespace {

struct Case {
  W4Format format;
  ActivationType type;
  int64_t rows, cols, batch;
  int variant;
  bool overlap;
  int thread_blocks = 0;

  std::string Text() const {
    return std::string(Name(format)) + " " + Name(type) + " " + std::to_string(rows) + "x" +
           std::to_string(cols) + " batch " + std::to_string(batch) + " variant " +
           std::to_string(variant) + " thread blocks " + std::to_string(thread_blocks) +
           (overlap ? " overlapped" : "");
  }
};

// The weights of some rows, read back from the device, as float32.
std::vector<std::vector<float>> ReadRows(const DeviceWeights& weights,
                                         const std::vector<int64_t>& rows) {
  const W4Matrix& w = weights.matrix;
  const int64_t code_bytes = W4CodeBytes(w) / w.row_tiles();
  const int64_t scale_values = W4ScaleBytes(w) / w.row_tiles() / 2;
  std::vector<std::vector<float>> result;
  int64_t held = -1;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  for (int64_t row : rows) {
    const int64_t tile = row / kW4TileRows;
    if (tile != held) {
      codes = weights.codes.Read<uint8_t>(static_cast<size_t>(tile * code_bytes),
                                          static_cast<size_t>(code_bytes));
      scales = weights.scales.Read<uint16_t>(static_cast<size_t>(tile * scale_values),
                                             static_cast<size_t>(scale_values));
      held = tile;
    }
    const W4Matrix one{w.format, kW4TileRows, w.cols, codes.data(), scales.data()};
    result.emplace_back(static_cast<size_t>(w.cols));
    UnpackW4Row(one, row % kW4TileRows, result.back().data());
  }
  return result;
}

// The rows to compare: all of a small matrix, and of a large one some from everywhere.
std::vector<int64_t> RowsToCompare(std::mt19937_64& random, int64_t rows) {
  std::vector<int64_t> chosen(static_cast<size_t>(std::min<int64_t>(rows, 300)));
  std::iota(chosen.begin(), chosen.end(), 0);
  if (rows > 300) {
    chosen.resize(24);
    for (int64_t& row : chosen) row = static_cast<int64_t>(random() % static_cast<uint64_t>(rows));
    chosen.push_back(0);
    chosen.push_back(rows - 1);
    std::sort(chosen.begin(), chosen.end());
  }
  return chosen;
}

// A bound on |y - exact|. u: half a unit of y's last place, relative; 2^-25: that of binary16's
// subnormals. The rest is float32's: products of a 16-bit float and a whole number below 16 are
// exact, so only additions err, each by at most 2^-23 (tensor cores may truncate) of the sum of
// magnitudes `total`. A term passes one addition per 16 columns, one per 32, and at most 64 where
// warps' and thread blocks' sums meet. UnpackW4Row's own roundings (2^-24 of a weight) are one
// more.
double Bound(const Case& c, double exact, double total) {
  const double u = c.type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
  const double additions = static_cast<double>(c.cols) * 3 / 32 + 65;
  return u * std::fabs(exact) + additions * 0x1p-23 * total + 0x1p-25;
}

struct Sums {
  double exact = 0;
  double total = 0;  // of magnitudes
};

Sums Sum(const float* w, const double* x, int64_t cols) {
  Sums sums;
  for (int64_t k = 0; k < cols; ++k) {
    const double term = static_cast<double>(w[k]) * x[k];
    sums.exact += term;
    sums.total += std::fabs(term);
  }
  return sums;
}

void CompareRows(const Case& c, const Activations& x, const std::vector<uint16_t>& y,
                 const std::vector<int64_t>& rows, const std::vector<std::vector<float>>& weights) {
  double error2 = 0;
  double exact2 = 0;
  double worst = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int64_t r = 0; r < c.batch; ++r) {
      const Sums sums = Sum(weights[i].data(), &x.values[static_cast<size_t>(r * c.cols)], c.cols);
      // The terms d q x and m x of Q4_1 cancel: their magnitudes are within 8 of their sum's here.
      const double total = sums.total * (c.format == W4Format::kQ4_1 ? 8 : 1);
      const double exact = sums.exact;
      const double got = Widen(c.type, y[static_cast<size_t>(r * c.rows + rows[i])]);
      const double error = std::fabs(got - exact);
      const double ratio = error / Bound(c, exact, total);
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
      error2 += error * error;
      exact2 += exact * exact;
    }
  }
  char text[100];
  std::snprintf(text, sizeof(text), ": error %.2f of the bound, relative %.2e", worst,
                std::sqrt(error2 / exact2));
  Expect(worst <= 1, c.Text() + text);
  // Of a few outputs it says nothing: where terms cancel, float32's roundings are more than y's.
  if (static_cast<int64_t>(rows.size()) * c.batch < 32) return;
  const double norm = c.type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
  Expect(error2 <= norm * norm * exact2, c.Text() + text);
}

void RunCase(std::mt19937_64& random, const Case& c, DeviceMemory& workspace) {
  const DeviceWeights weights(random, {c.format, c.rows, c.cols, nullptr, nullptr});
  const Activations x(random, c.type, c.batch, c.cols);
  const DeviceMemory device_x(x.bits);
  const std::vector<uint16_t> y =
      RunProductTo<uint16_t>(c.Text(), c.batch, c.rows, [&](void* out, int64_t y_stride) {
        return W4A16MatMul(
            {weights.matrix, c.type, device_x.As(), x.stride, out, y_stride, c.batch,
             workspace.As(), workspace.bytes(), c.overlap, c.variant, c.thread_blocks},
            nullptr);
      });
  const auto rows = RowsToCompare(random, c.rows);
  CompareRows(c, x, y, rows, ReadRows(weights, rows));
}

// Whether the device has the shared memory that the variant takes.
bool Fits(int variant, W4Format format) {
  int shared = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return variant < 0 || kW4Variants[variant].shared_bytes(W4RecordBytes(format)) <= shared;
}

constexpr W4Format kFormats[] = {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1};
constexpr ActivationType kTypes[] = {ActivationType::kF16, ActivationType::kBF16};

void RaggedShapes(std::mt19937_64& random, bool small, DeviceMemory& workspace) {
  struct Shape {
    int64_t rows, cols, batch;
  };
  std::vector<Shape> shapes = {{1, 32, 1}, {17, 160, 3}, {100, 384, 9}, {257, 640, 8}};
  if (!small) {
    shapes.insert(shapes.end(), {{16, 96, 16},
                                 {1000, 1152, 33},
                                 {48, 4096, 64},
                                 {513, 896, 65},
                                 {96, 2048, 128},
                                 {40, 512, 300},
                                 {1024, 8192, 17}});
  }
  for (W4Format format : kFormats) {
    for (ActivationType type : kTypes) {
      for (const Shape& shape : shapes) {
        const int64_t group = W4GroupCols(format);
        const int64_t cols = (shape.cols + group - 1) / group * group;
        // Few thread blocks: many units each, cut inside blocks of rows and at their ends.
        for (int variant = -1; variant < kW4VariantCount; ++variant) {
          for (int thread_blocks : {0, 1, 5}) {
            if (!Fits(variant, format)) continue;
            RunCase(random,
                    {format, type, shape.rows, cols, shape.batch, variant, variant % 2 == 0,
                     thread_blocks},
                    workspace);
          }
        }
      }
    }
  }
}

// Also beyond 2^32 bytes of codes.
void LargeShapes(std::mt19937_64& random, DeviceMemory& workspace) {
  for (W4Format format : kFormats) {
    for (int64_t batch : {1, 5, 16, 32, 64, 128}) {
      RunCase(random, {format, ActivationType::kF16, 14336, 4096, batch, -1, true}, workspace);
      RunCase(random, {format, ActivationType::kBF16, 4096, 14336, batch, -1, false}, workspace);
    }
  }
  RunCase(random, {W4Format::kAwq, ActivationType::kF16, 28672, 8192, 3, -1, false}, workspace);
  RunCase(random, {W4Format::kQ4_0, ActivationType::kF16, 150000, 65536, 2, -1, false}, workspace);
}

void BadArguments(std::mt19937_64& random, DeviceMemory& workspace) {
  const DeviceWeights weights(random, {W4Format::kAwq, 64, 256, nullptr, nullptr});
  DeviceMemory x(64 * 256 * 2);
  x.Fill(0);
  const DeviceMemory y(64 * 64 * 2);
  const W4A16Args good{weights.matrix, ActivationType::kF16, x.As(), 256, y.As(), 64, 1,
                       workspace.As(), workspace.bytes()};
  const auto refused = [](const W4A16Args& args, const char* part) {
    ExpectRefusal(W4A16MatMul(args, nullptr), part);
  };
  auto bad = good;
  bad.weights.cols = 250;
  refused(bad, "multiple of 128");
  bad = good;
  bad.weights.rows = 0;
  refused(bad, "from 1 to");
  bad = good;
  bad.x = x.As<uint8_t>() + 2;
  refused(bad, "16-byte aligned");
  bad = good;
  bad.x_stride = 255;
  refused(bad, "x_stride");
  bad = good;
  bad.y_stride = 63;
  refused(bad, "y_stride");
  bad = good;
  bad.batch = 0;
  refused(bad, "batch of 0");
  bad = good;
  bad.workspace_size = 256;
  refused(bad, "workspace");
  bad = good;
  bad.variant = kW4VariantCount;
  refused(bad, "no variant");
  Expect(W4A16MatMul(good, nullptr).empty(), "the good arguments are good");
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
}

void RunAll(std::mt19937_64& random, bool small) {
  DeviceMemory workspace(W4A16WorkspaceBytes());
  workspace.Fill(0);
  BadArguments(random, workspace);
  RaggedShapes(random, small, workspace);
  if (!small) LargeShapes(random, workspace);
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::RunAll);
}
