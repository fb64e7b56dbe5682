// The instructions of kernels/cuda/common/ptx.cuh against plain products of whole matrices: that
// each lane's registers hold what the PTX ISA's formulas say, and what CuTe's layouts do. On a GPU,
// or on the emulator.

#include <cmath>

#include "tests/cuda/device_support.h"
#include "tests/cuda/mma_layouts.h"
#include "tests/cuda/ptx_kernels.h"

namespace quern::kernels::testing {
namespace {

int failures = 0;
int checks = 0;

void Expect(bool ok, const std::string& what) {
  ++checks;
  if (ok) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

struct Op {
  MmaOp op;
  const char* name;
  int depth;
  int bytes;  // of an element
  MmaLayouts layouts;
};

// OCP E4M3, from its definition: 1 bit of sign, 4 of exponent with bias 7, 3 of fraction.
double E4m3(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 3 & 15);
  const int fraction = static_cast<int>(bits & 7);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

double Value(MmaOp op, uint32_t bits) {
  switch (op) {
    case MmaOp::kF16K16:
    case MmaOp::kF16K8:
      return static_cast<double>(HalfToFloat(static_cast<uint16_t>(bits)));
    case MmaOp::kBf16K16:
    case MmaOp::kBf16K8:
      return static_cast<double>(Bf16ToFloat(static_cast<uint16_t>(bits)));
    case MmaOp::kS8K32:
      return static_cast<int8_t>(bits);
    case MmaOp::kE4m3K32:
      return E4m3(bits);
  }
  return 0;
}

// Whole numbers up to 8: every sum is exact in whatever order.
uint32_t RandomElement(std::mt19937_64& random, MmaOp op) {
  const auto whole = static_cast<float>(static_cast<int>(random() % 17) - 8);
  switch (op) {
    case MmaOp::kF16K16:
    case MmaOp::kF16K8:
      return FloatToHalf(whole);
    case MmaOp::kBf16K16:
    case MmaOp::kBf16K8:
      return FloatToBf16(whole);
    case MmaOp::kS8K32:
      return static_cast<uint8_t>(random());
    case MmaOp::kE4m3K32:
      for (;;) {  // whole numbers up to 8, found by trial
        const auto bits = static_cast<uint8_t>(random());
        if (std::fabs(E4m3(bits)) <= 8 && E4m3(bits) == std::floor(E4m3(bits))) return bits;
      }
  }
  return 0;
}

std::vector<uint8_t> RandomMatrix(std::mt19937_64& random, const Op& op, int elements) {
  std::vector<uint8_t> bytes(static_cast<size_t>(elements * op.bytes));
  for (int i = 0; i < elements; ++i) {
    const uint32_t bits = RandomElement(random, op.op);
    std::memcpy(&bytes[static_cast<size_t>(i * op.bytes)], &bits, static_cast<size_t>(op.bytes));
  }
  return bytes;
}

double At(const Op& op, const std::vector<uint8_t>& matrix, int i) {
  uint32_t bits = 0;
  std::memcpy(&bits, &matrix[static_cast<size_t>(i * op.bytes)], static_cast<size_t>(op.bytes));
  return Value(op.op, bits);
}

// A product to compute, and what comes out.
struct Product {
  const Op& op;
  std::vector<uint8_t> a;  // [16][depth]
  std::vector<uint8_t> b;  // [depth][8]
  std::vector<int> start;  // [16][8]

  Product(std::mt19937_64& random, const Op& of)
      : op(of),
        a(RandomMatrix(random, of, 16 * of.depth)),
        b(RandomMatrix(random, of, of.depth * 8)),
        start(16 * 8) {
    for (int& c : start) c = static_cast<int>(random() % 1000);
  }
  bool whole() const { return op.op == MmaOp::kS8K32; }
  // A sum as the bits of a register: an integer, or a float32.
  uint32_t Bits(int value) const {
    const auto real = static_cast<float>(value);
    uint32_t bits;
    std::memcpy(&bits, whole() ? static_cast<const void*>(&value) : &real, 4);
    return bits;
  }
  uint32_t Expected(int row, int col) const {
    double sum = start[static_cast<size_t>(row * 8 + col)];
    for (int k = 0; k < op.depth; ++k) {
      sum += At(op, a, row * op.depth + k) * At(op, b, k * 8 + col);
    }
    return Bits(static_cast<int>(sum));
  }
};

void TestMma(std::mt19937_64& random, const Op& op) {
  const Product product(random, op);
  std::vector<uint32_t> start;
  for (int c : product.start) start.push_back(product.Bits(c));
  const DeviceMemory a(product.a);
  const DeviceMemory b(product.b);
  const DeviceMemory c(start);
  QUERN_CUDA_CHECK(RunMma(op.op, a.As(), b.As(), c.As()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto got = c.Read<uint32_t>(0, start.size());
  bool same = true;
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      same &= got[static_cast<size_t>(row * 8 + col)] == product.Expected(row, col);
    }
  }
  Expect(same, std::string("mma ") + op.name);
}

// The elements of a matrix of `rows` rows as the lanes' registers hold them; `element` gives them
// by row and column.
template <typename Element>
std::vector<uint32_t> Fragments(const Op& op, const FragmentLayout& layout, int rows, int values,
                                size_t registers, Element element) {
  std::vector<uint32_t> words(32 * registers);
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < values; ++v) {
      const int index = layout.Index(lane, v);
      uint32_t bits = 0;
      std::memcpy(&bits, element(index % rows, index / rows), static_cast<size_t>(op.bytes));
      words[static_cast<size_t>(lane) * registers + static_cast<size_t>(v * op.bytes / 4)] |=
          bits << (8 * (v * op.bytes % 4));
    }
  }
  return words;
}

void TestMmaLayouts(std::mt19937_64& random, const Op& op) {
  const Product product(random, op);
  const auto at = [&](const std::vector<uint8_t>& matrix, int i) {
    return &matrix[static_cast<size_t>(i * op.bytes)];
  };
  const DeviceMemory a(
      Fragments(op, op.layouts.a, 16, 16 * op.depth / 32, 4,
                [&](int row, int col) { return at(product.a, row * op.depth + col); }));
  const DeviceMemory b(Fragments(op, op.layouts.b, 8, 8 * op.depth / 32, 2,
                                 [&](int col, int row) { return at(product.b, row * 8 + col); }));
  std::vector<uint32_t> sums(32 * 4);
  const auto for_sums = [&](auto fn) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int v = 0; v < 4; ++v) {
        const int index = kSums.Index(lane, v);
        fn(sums[static_cast<size_t>(lane * 4 + v)], index % 16, index / 16);
      }
    }
  };
  for_sums([&](uint32_t& word, int row, int col) {
    word = product.Bits(product.start[static_cast<size_t>(row * 8 + col)]);
  });
  const DeviceMemory c(sums);
  QUERN_CUDA_CHECK(RunMmaRegisters(op.op, a.As<uint32_t>(), b.As<uint32_t>(), c.As<uint32_t>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  sums = c.Read<uint32_t>(0, sums.size());
  bool same = true;
  for_sums([&](uint32_t& word, int row, int col) { same &= word == product.Expected(row, col); });
  Expect(same, std::string("mma by CuTe's layouts ") + op.name);
}

void TestLoadMatrices(std::mt19937_64& random, int matrices, bool transposed) {
  std::vector<uint16_t> from(static_cast<size_t>(matrices * 64));
  for (uint16_t& element : from) element = static_cast<uint16_t>(random());
  const DeviceMemory device_from(from);
  const DeviceMemory result(static_cast<size_t>(32 * matrices) * 4);
  QUERN_CUDA_CHECK(
      RunLoadMatrices(matrices, transposed, device_from.As<uint16_t>(), result.As<uint32_t>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto words = result.Read<uint32_t>(0, static_cast<size_t>(32 * matrices));
  bool same = true;
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < matrices; ++m) {
      uint32_t expected = 0;
      for (int j = 0; j < 2; ++j) {
        const int row = transposed ? lane % 4 * 2 + j : lane / 4;
        const int col = transposed ? lane / 4 : lane % 4 * 2 + j;
        const uint32_t element = from[static_cast<size_t>(m * 64 + row * 8 + col)];
        expected |= element << (16 * j);
      }
      same &= words[static_cast<size_t>(lane * matrices + m)] == expected;
    }
  }
  Expect(same, "ldmatrix x" + std::to_string(matrices) + (transposed ? " transposed" : ""));
}

void TestCopyAsync(std::mt19937_64& random, int bytes) {
  std::vector<uint8_t> from(static_cast<size_t>(32 * bytes));
  for (uint8_t& byte : from) byte = static_cast<uint8_t>(random());
  const DeviceMemory device_from(from);
  const DeviceMemory result(from.size());
  QUERN_CUDA_CHECK(RunCopyAsync(bytes, device_from.As<uint8_t>(), result.As<uint8_t>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  for (size_t i = 0; i < from.size(); ++i) {
    if (i / static_cast<size_t>(bytes) % 3 == 0) from[i] = 0;
  }
  Expect(result.Read<uint8_t>(0, from.size()) == from, "cp.async of " + std::to_string(bytes));
}

void TestE4m3ToHalves() {
  const DeviceMemory result(256 * 4);
  QUERN_CUDA_CHECK(RunE4m3ToHalves(result.As<uint32_t>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto same = [](uint32_t half, uint32_t e4m3) {
    const auto value = static_cast<double>(HalfToFloat(static_cast<uint16_t>(half)));
    return (e4m3 & 0x7f) == 0x7f ? std::isnan(value) : value == E4m3(e4m3);
  };
  bool all = true;
  const auto got = result.Read<uint32_t>(0, 256);
  for (uint32_t i = 0; i < 256; ++i) all &= same(got[i] & 0xffff, i) && same(got[i] >> 16, 255 - i);
  Expect(all, "cvt of e4m3");
}

void TestBytePerm(std::mt19937_64& random) {
  std::vector<uint32_t> from(96);
  for (uint32_t& word : from) word = static_cast<uint32_t>(random());
  const DeviceMemory device_from(from);
  const DeviceMemory result(32 * 4);
  QUERN_CUDA_CHECK(RunBytePerm(device_from.As<uint32_t>(), result.As<uint32_t>()));
  QUERN_CUDA_CHECK(cudaDeviceSynchronize());
  const auto got = result.Read<uint32_t>(0, 32);
  bool same = true;
  for (size_t i = 0; i < 32; ++i) {
    for (uint32_t byte = 0; byte < 4; ++byte) {
      const uint32_t from_byte = from[3 * i + 2] >> (4 * byte) & 7;
      const uint32_t expected = from[3 * i + from_byte / 4] >> (8 * (from_byte % 4)) & 0xff;
      same &= (got[i] >> (8 * byte) & 0xff) == expected;
    }
  }
  Expect(same, "__byte_perm");
}

bool HasE4m3() {
  int major = 0;
  int minor = 0;
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  QUERN_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  return major * 10 + minor >= 89;
}

}  // namespace
}  // namespace quern::kernels::testing

int main() {
  using namespace quern::kernels::testing;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no GPU: nothing was tested\n");
    return 77;  // skipped
  }
  constexpr Op kOps[] = {
      {MmaOp::kF16K16, "m16n8k16 f16", 16, 2, kK16},
      {MmaOp::kBf16K16, "m16n8k16 bf16", 16, 2, kK16},
      {MmaOp::kF16K8, "m16n8k8 f16", 8, 2, kK8},
      {MmaOp::kBf16K8, "m16n8k8 bf16", 8, 2, kK8},
      {MmaOp::kS8K32, "m16n8k32 s8", 32, 1, kK32},
      {MmaOp::kE4m3K32, "m16n8k32 e4m3", 32, 1, kK32},
  };
  std::mt19937_64 random(std::random_device{}());
  for (int round = 0; round < 10; ++round) {
    for (const Op& op : kOps) {
      if (op.op == MmaOp::kE4m3K32 && !HasE4m3()) continue;
      TestMma(random, op);
      TestMmaLayouts(random, op);
    }
    for (int matrices : {1, 2, 4}) {
      for (bool transposed : {false, true}) TestLoadMatrices(random, matrices, transposed);
    }
  }
  for (int bytes : {4, 8, 16}) TestCopyAsync(random, bytes);
  TestBytePerm(random);
  if (HasE4m3()) TestE4m3ToHalves();
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
