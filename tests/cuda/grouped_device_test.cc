// GroupedGemm and GroupedGgufMatMul on a GPU against float64 sums and against the products of each
// expert alone: fresh random inputs, ragged shapes, experts with no rows and with all, poisoned
// outputs, every shape of the kernel, a graph whose routing changes. `--small` leaves out what is
// too large for the emulator; `--seed N` repeats a run.

#include "kernels/cuda/common/matmul_plan.h"
#include "quern/kernels/gemm.h"
#include "quern/kernels/gguf_matmul.h"
#include "quern/kernels/grouped_matmul.h"
#include "tests/cuda/gguf_test_support.h"

namespace quern::kernels::testing {
namespace {

// Experts' weights on the device, of one of GGUF's types; kF16 stands for dense ones of the
// activations' type.
struct Experts {
  WeightType type;
  ActivationType activations;
  int64_t experts, rows, cols;
  int64_t w_stride;             // dense
  std::vector<uint8_t> source;  // GGUF
  std::vector<uint8_t> packed;
  DeviceMemory data;

  static bool IsDense(WeightType type) { return type == WeightType::kF16; }
  static int64_t Cols(WeightType type, int64_t cols) {
    const int64_t unit = IsDense(type) ? 8 : FindWeightTypeInfo(type)->block_elements;
    return (cols + unit - 1) / unit * unit;
  }

  Experts(std::mt19937_64& random, WeightType weights, ActivationType act, int64_t count,
          int64_t row_count, int64_t col_count)
      : type(weights),
        activations(act),
        experts(count),
        rows(row_count),
        cols(Cols(weights, col_count)),
        w_stride(cols + 8),
        packed(Pack(random)),
        data(packed) {}

  GgufMatrix One() const { return {type, rows, cols, data.As<uint8_t>()}; }
  int64_t OneBytes() const { return IsDense(type) ? rows * w_stride * 2 : GgufBytes(Shape()); }
  GgufMatrix Shape() const { return {type, rows, cols, nullptr}; }

  std::vector<uint8_t> Pack(std::mt19937_64& random) {
    std::vector<uint8_t> bytes(static_cast<size_t>(experts * OneBytes()), 0xff);
    if (IsDense(type)) {
      std::normal_distribution<float> normal(0, 1);
      for (int64_t r = 0; r < experts * rows; ++r) {
        for (int64_t k = 0; k < cols; ++k) {
          const uint16_t value = Round(activations, normal(random));
          std::memcpy(&bytes[static_cast<size_t>(r * w_stride + k) * 2], &value, 2);
        }
      }
      return bytes;
    }
    source = RandomGguf(random, type,
                        experts * rows * (cols / FindWeightTypeInfo(type)->block_elements));
    for (int64_t e = 0; e < experts; ++e) {
      PackGgufTiles(Shape(), Row(e, 0), 0, Shape().row_tiles(),
                    &bytes[static_cast<size_t>(e * OneBytes())]);
    }
    return bytes;
  }

  const uint8_t* Row(int64_t expert, int64_t row) const {
    const auto bytes = static_cast<int64_t>(source.size()) / (experts * rows);
    return &source[static_cast<size_t>((expert * rows + row) * bytes)];
  }

  std::vector<WeightRow> Weights(int64_t expert) const {
    std::vector<WeightRow> result;
    for (int64_t r = 0; r < rows; ++r) {
      if (!IsDense(type)) {
        result.push_back(ReadGgufRow(type, Row(expert, r), cols));
        continue;
      }
      WeightRow row;
      for (int64_t k = 0; k < cols; ++k) {
        uint16_t bits;
        std::memcpy(&bits, &packed[static_cast<size_t>((expert * rows + r) * w_stride + k) * 2], 2);
        row.values.push_back(static_cast<double>(Widen(activations, bits)));
      }
      row.magnitudes = row.values;
      result.push_back(std::move(row));
    }
    return result;
  }

  // How many roundings a sum may suffer: gguf_device_test's and gemm_device_test's.
  double Additions() const {
    return IsDense(type) ? (static_cast<double>(cols) / 4 + 32) / 8 + 4 : GgufAdditions(cols);
  }

  std::string Start(const GroupedMatMulArgs& args, cudaStream_t stream = nullptr) const {
    if (IsDense(type)) return GroupedGemm(args, {data.As(), w_stride, rows, cols}, stream);
    return GroupedGgufMatMul(args, One(), stream);
  }
  // One expert's product of `batch` rows of x, to float32.
  std::string StartOne(int64_t expert, const void* x, int64_t x_stride, int64_t batch, void* y,
                       int64_t y_stride) const {
    const uint8_t* weights = data.As<uint8_t>() + expert * OneBytes();
    if (IsDense(type)) {
      return Gemm({activations, weights, w_stride, rows, cols, x, x_stride, y, y_stride, batch,
                   false, true},
                  nullptr);
    }
    return GgufMatMul(
        {{type, rows, cols, weights}, activations, x, x_stride, y, y_stride, batch, false, true},
        nullptr);
  }
  std::string Text() const {
    return std::string(IsDense(type) ? "dense" : FindWeightTypeInfo(type)->name) + " " +
           testing::Name(activations) + " " + std::to_string(experts) + " of " +
           std::to_string(rows) + "x" + std::to_string(cols);
  }
};

enum class Load { kUniform, kOneExpert, kFew, kSomeWithout };

std::vector<int32_t> RandomIds(std::mt19937_64& random, int64_t pairs, int64_t experts, Load load) {
  std::vector<int32_t> ids(static_cast<size_t>(pairs));
  const auto one = static_cast<int32_t>(random() % static_cast<uint64_t>(experts));
  for (int32_t& id : ids) {
    const auto any = static_cast<int32_t>(random() % static_cast<uint64_t>(experts));
    id = load == Load::kOneExpert ? one : load == Load::kFew ? any / 3 : any;
    if (load == Load::kSomeWithout && random() % 3 == 0) id = random() % 2 == 0 ? -1 : 1 << 20;
  }
  return ids;
}

// Pairs sorted on the host, on the device.
struct Sorted {
  int64_t pairs, experts, tile, rows;
  std::vector<int32_t> row_pairs, pair_rows, offsets;
  DeviceMemory device_rows, device_offsets;

  Sorted(const std::vector<int32_t>& ids, int64_t expert_count, int64_t tile_rows)
      : pairs(static_cast<int64_t>(ids.size())),
        experts(expert_count),
        tile(tile_rows),
        rows(MoePermuteRows(pairs, experts, tile)),
        row_pairs(static_cast<size_t>(rows)),
        pair_rows(ids.size()),
        offsets(Sort(ids)),
        device_rows(row_pairs),
        device_offsets(offsets) {}

  std::vector<int32_t> Sort(const std::vector<int32_t>& ids) {
    std::vector<int32_t> result(static_cast<size_t>(experts + 1));
    ref::MoePermute({ids.data(), pairs, experts, tile, row_pairs.data(), pair_rows.data(),
                     result.data(), nullptr, 0});
    return result;
  }
  // An expert's sorted rows that have a pair.
  std::vector<int64_t> RowsOf(int64_t expert) const {
    std::vector<int64_t> result;
    for (int64_t r = offsets[static_cast<size_t>(expert)];
         r < offsets[static_cast<size_t>(expert) + 1]; ++r) {
      if (row_pairs[static_cast<size_t>(r)] >= 0) result.push_back(r);
    }
    return result;
  }
};

// The right values, and each row's bits those of its expert's own product; rows without a pair as
// they were.
void CompareExperts(const std::string& text, const Experts& weights, const Sorted& sorted,
                    const Activations& x, int64_t top_k, const ProductResult& y) {
  bool untouched = true;
  for (int64_t r = 0; r < sorted.rows; ++r) {
    if (sorted.row_pairs[static_cast<size_t>(r)] >= 0) continue;
    for (int64_t c = r * weights.rows; c < (r + 1) * weights.rows; ++c) {
      const auto at = static_cast<size_t>(c);
      untouched = untouched && y.narrow[at] == 0xffff && std::isnan(y.wide[at]);
    }
  }
  Expect(untouched, text + ": wrote a row without a pair");
  for (int64_t e = 0; e < weights.experts; ++e) {
    const std::vector<int64_t> rows = sorted.RowsOf(e);
    if (rows.empty()) continue;
    std::vector<uint16_t> bits;
    std::vector<double> values;
    ProductResult part;
    for (int64_t r : rows) {
      const int64_t from = top_k == 0 ? r : sorted.row_pairs[static_cast<size_t>(r)] / top_k;
      bits.insert(bits.end(), x.bits.begin() + from * x.stride,
                  x.bits.begin() + (from + 1) * x.stride);
      values.insert(values.end(), x.values.begin() + from * weights.cols,
                    x.values.begin() + (from + 1) * weights.cols);
      part.narrow.insert(part.narrow.end(), y.narrow.begin() + r * weights.rows,
                         y.narrow.begin() + (r + 1) * weights.rows);
      part.wide.insert(part.wide.end(), y.wide.begin() + r * weights.rows,
                       y.wide.begin() + (r + 1) * weights.rows);
    }
    const std::string one = text + " expert " + std::to_string(e);
    CompareProduct(one, weights.activations, weights.Weights(e), values, weights.Additions(), part);
    const DeviceMemory device_x(bits);
    const auto batch = static_cast<int64_t>(rows.size());
    const DeviceMemory device_y(part.wide.size() * 4);
    const std::string wrong =
        weights.StartOne(e, device_x.As(), x.stride, batch, device_y.As(), weights.rows);
    Expect(wrong.empty(), one + ": " + wrong);
    Expect(SameBits(device_y.Read<float>(0, part.wide.size()), part.wide),
           one + ": other bits than its own product's");
  }
}

int SharedLimit() {
  int shared = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  return shared;
}

struct Case {
  int64_t experts, top_k, tokens, tile, rows, cols;
  Load load;
};

void RunCase(std::mt19937_64& random, WeightType type, ActivationType activations, const Case& c) {
  const Experts weights(random, type, activations, c.experts, c.rows, c.cols);
  const Sorted sorted(RandomIds(random, c.tokens * c.top_k, c.experts, c.load), c.experts, c.tile);
  const std::string text = weights.Text() + " " + std::to_string(c.tokens) + " tokens top " +
                           std::to_string(c.top_k) + " tile " + std::to_string(c.tile) + " load " +
                           std::to_string(static_cast<int>(c.load));
  for (int64_t top_k : {c.top_k, int64_t{0}}) {
    const Activations x(random, activations, top_k == 0 ? sorted.rows : c.tokens, weights.cols);
    const DeviceMemory device_x(x.bits);
    GroupedMatMulArgs args{sorted.device_offsets.As<int32_t>(),
                           sorted.device_rows.As<int32_t>(),
                           sorted.pairs,
                           sorted.experts,
                           sorted.tile,
                           activations,
                           device_x.As(),
                           x.stride,
                           top_k,
                           nullptr,
                           0};
    const auto run = [&](const std::string& how) {
      return RunProduct(text + how, activations, sorted.rows, c.rows,
                        [&](void* y, int64_t y_stride, bool float32_y) {
                          args.y = y;
                          args.y_stride = y_stride;
                          args.float32_y = float32_y;
                          return weights.Start(args);
                        });
    };
    const std::string mode = top_k == 0 ? " sorted x" : " tokens' x";
    const ProductResult all = run(mode);
    CompareExperts(text + mode, weights, sorted, x, top_k, all);
    for (int shape = 0; shape < kMatMulShapeCount; ++shape) {
      if (!IsGroupedMatMulShape(shape) || c.tile % kMatMulShapes[shape].batch() != 0 ||
          kMatMulShapes[shape].shared_bytes(2048, 576) > SharedLimit()) {
        continue;
      }
      args.shape = shape;
      args.thread_blocks = 1 + (shape + static_cast<int>(top_k)) % 3;
      args.overlap_previous = shape % 2 == 1;
      const std::string how = mode + " shape " + std::to_string(shape);
      Expect(run(how) == all, text + how + ": bits depend on the shape");
    }
  }
}

// Sorting and product in a graph: replayed with other ids, it does what the calls do outside of it.
void RunGraph(std::mt19937_64& random) {
  constexpr int64_t kExperts = 12, kTopK = 3, kTokens = 17, kTile = 16, kPairs = kTokens * kTopK;
  const Experts weights(random, WeightType::kQ8_0, ActivationType::kBF16, kExperts, 40, 96);
  const Activations x(random, ActivationType::kBF16, kTokens, weights.cols);
  const DeviceMemory device_x(x.bits);
  const int64_t rows = MoePermuteRows(kPairs, kExperts, kTile);
  DeviceMemory ids(kPairs * 4), row_pairs(static_cast<size_t>(rows) * 4), pair_rows(kPairs * 4),
      offsets((kExperts + 1) * 4), y(static_cast<size_t>(rows * weights.rows) * 4);
  const GroupedMatMulArgs args{offsets.As<int32_t>(),
                               row_pairs.As<int32_t>(),
                               kPairs,
                               kExperts,
                               kTile,
                               ActivationType::kBF16,
                               device_x.As(),
                               x.stride,
                               kTopK,
                               y.As(),
                               weights.rows,
                               true};
  cudaStream_t stream;
  QUERN_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const auto start = [&] {
    std::string wrong =
        MoePermute({ids.As<int32_t>(), kPairs, kExperts, kTile, row_pairs.As<int32_t>(),
                    pair_rows.As<int32_t>(), offsets.As<int32_t>(), nullptr, 0},
                   stream);
    if (wrong.empty()) wrong = weights.Start(args, stream);
    Expect(wrong.empty(), "graph: " + wrong);
  };
  const auto choose = [&](Load load) {
    const std::vector<int32_t> chosen = RandomIds(random, kPairs, kExperts, load);
    QUERN_CUDA_CHECK(cudaMemcpy(ids.As(), chosen.data(), ids.bytes(), cudaMemcpyHostToDevice));
    y.Fill(0xff);
  };
  choose(Load::kUniform);
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  start();
  QUERN_CUDA_CHECK(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  QUERN_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  start();
  QUERN_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  QUERN_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  for (Load load : {Load::kOneExpert, Load::kSomeWithout, Load::kFew}) {
    std::vector<float> got[2];
    choose(load);
    for (int direct = 0; direct < 2; ++direct) {
      y.Fill(0xff);
      QUERN_CUDA_CHECK(cudaDeviceSynchronize());
      if (direct == 0) {
        QUERN_CUDA_CHECK(cudaGraphLaunch(executable, stream));
      } else {
        start();
      }
      QUERN_CUDA_CHECK(cudaStreamSynchronize(stream));
      got[direct] = y.Read<float>(0, y.bytes() / 4);
    }
    Expect(SameBits(got[0], got[1]), "graph: other bits than the calls'");
  }
  QUERN_CUDA_CHECK(cudaGraphExecDestroy(executable));
  QUERN_CUDA_CHECK(cudaGraphDestroy(graph));
  QUERN_CUDA_CHECK(cudaStreamDestroy(stream));
}

void BadArguments() {
  DeviceMemory memory(1 << 16);
  memory.Fill(0);
  const auto* ints = memory.As<int32_t>();
  const DeviceMemory y(64 * 32 * 4);
  const GroupedMatMulArgs good{ints,        ints, 8, 4,      8, ActivationType::kF16,
                               memory.As(), 64,   2, y.As(), 32};
  const DenseExperts dense{memory.As(), 64, 32, 64};
  const auto refused = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    ExpectRefusal(GroupedGemm(bad, dense, nullptr), part);
  };
  refused([](auto& a) { a.pairs = -1; }, "grouped GEMM: pairs is -1");
  refused([](auto& a) { a.experts = 513; }, "experts is 513; it must be from 1 to 512");
  refused([](auto& a) { a.tile = 12; }, "tile is 12; it must be a multiple of 8");
  refused([](auto& a) { a.top_k = 3; }, "pairs is 8; it must be a multiple of top_k, 3");
  refused([](auto& a) { a.offsets = nullptr; }, "offsets is null");
  refused([](auto& a) { a.row_pairs = nullptr; }, "row_pairs is null");
  refused([](auto& a) { a.x_stride = 60; }, "x_stride is 60");
  refused([](auto& a) { a.y_stride = 31; }, "y_stride is 31");
  refused([](auto& a) { a.y = nullptr; }, "y must be");
  refused([](auto& a) { a.shape = 1; }, "shape 1 is none for a tile of 8");
  refused([](auto& a) { a.shape = 3; }, "shape 3 is none for a tile of 8");
  refused([](auto& a) { a.thread_blocks = -1; }, "thread_blocks");
  auto bad = dense;
  bad.w_stride = 63;
  ExpectRefusal(GroupedGemm(good, bad, nullptr), "w_stride is 63");
  const GgufMatrix one{WeightType::kQ4_K, 32, 64, memory.As<uint8_t>()};
  ExpectRefusal(GroupedGgufMatMul(good, one, nullptr), "grouped GGUF: ");
  auto none = good;
  none.pairs = 0;
  Expect(GroupedGemm(none, dense, nullptr).empty(), "no pairs are nothing to do");
  Expect(GroupedGemm(good, dense, nullptr).empty(), "the good arguments are good");
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
}

static_assert(GroupedMatMulTile(8, 128) == 8);
static_assert(GroupedMatMulTile(128 * 5, 128) == 8 && GroupedMatMulTile(128 * 6, 128) == 16);
static_assert(GroupedMatMulTile(8 * 20, 8) == 32 && GroupedMatMulTile(100000, 8) == 64);

void RunAll(std::mt19937_64& random, bool small) {
  BadArguments();
  RunGraph(random);
  std::vector<WeightType> types(std::begin(kGgufTypes), std::end(kGgufTypes));
  types.push_back(WeightType::kF16);
  for (WeightType type : types) {
    for (ActivationType activations : {ActivationType::kF16, ActivationType::kBF16}) {
      RunCase(random, type, activations, {4, 2, 9, 8, 33, 200, Load::kUniform});
    }
  }
  const std::vector<Case> cases = {
      {1, 1, 1, 8, 1, 8, Load::kUniform},       {64, 8, 7, 8, 40, 72, Load::kUniform},
      {5, 3, 40, 24, 70, 136, Load::kUniform},  {16, 4, 20, 32, 70, 200, Load::kSomeWithout},
      {7, 2, 45, 64, 33, 96, Load::kOneExpert}, {33, 5, 11, 16, 65, 40, Load::kFew},
      {512, 4, 60, 8, 3, 16, Load::kUniform},   {100, 6, 30, 64, 5, 16, Load::kSomeWithout}};
  for (const Case& c : cases) {
    for (int i = 0; i < 2; ++i) {
      // The many experts are dense: so they are few bytes.
      const WeightType type = c.experts >= 100 ? WeightType::kF16 : types[random() % types.size()];
      RunCase(random, type, random() % 2 == 0 ? ActivationType::kF16 : ActivationType::kBF16, c);
    }
  }
  if (small) return;
  for (WeightType type : {WeightType::kQ4_K, WeightType::kQ6_K, WeightType::kF16}) {
    RunCase(random, type, ActivationType::kBF16, {128, 8, 4, 8, 768, 2048, Load::kUniform});
    RunCase(random, type, ActivationType::kBF16, {32, 4, 300, 64, 768, 1024, Load::kFew});
  }
}

}  // namespace
}  // namespace quern::kernels::testing

int main(int argc, char** argv) {
  return quern::kernels::testing::RunDeviceTest(argc, argv, quern::kernels::testing::RunAll);
}
