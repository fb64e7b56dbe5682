#include "tests/cuda/append_kv_cases.h"

#include <numeric>

#include "quern/kernels/append_kv.h"
#include "quern/kernels/hadamard.h"
#include "tests/cuda/kv_test_support.h"

namespace quern::kernels::testing {
namespace {

struct Case {
  ActivationType type;
  DeviceKvFormat format;
  int head_dim, block_tokens, q_heads, kv_heads;
  int64_t tokens;
  bool norm;
  RopePairs pairs;
  int rope_dims;
  bool in_place;
  bool rotate = false;

  std::string Text() const {
    return std::string("append ") + Name(format) + " " + Name(type) + " head_dim " +
           std::to_string(head_dim) + " tokens " + std::to_string(tokens) + " heads " +
           std::to_string(q_heads) + "/" + std::to_string(kv_heads) + (norm ? " norm" : "") +
           " rope " + std::to_string(rope_dims) +
           (pairs == RopePairs::kAdjacent ? " adjacent" : " halves") +
           (in_place ? " in place" : "") + (rotate ? " rotated" : "");
  }
};

double Largest(const std::vector<double>& x) {
  double largest = 0;
  for (double value : x) largest = std::max(largest, std::fabs(value));
  return largest;
}

// A head as it is to be before it is rounded, and how far each element of float32 may be from it.
struct Exact {
  std::vector<double> x;
  double error = 0;
};

// By the CPU's reference. Errors of the elements may all add up: sqrt(dim) times the largest of
// them. On top come the roundings of the factor, the product, up to eight sums and the reference's
// two: each 2^-24 of sqrt(dim) times the largest element, together below 2^-20 of that.
void Rotate(Exact* head) {
  std::vector<float> x(head->x.begin(), head->x.end());
  const double root = std::sqrt(static_cast<double>(x.size()));
  head->error = root * (head->error + 0x1p-20 * Largest(head->x));
  ref::Hadamard(static_cast<int>(x.size()), x.data());
  head->x.assign(x.begin(), x.end());
}

// What the kernel is given, and what its values are to be: float64.
struct Inputs {
  int64_t stride;
  std::vector<uint16_t> qkv;
  std::vector<float> q_norm, k_norm;
  std::vector<double> frequencies;
  std::vector<int32_t> positions;
  std::vector<int64_t> places;
  float epsilon = 1e-6f;

  Inputs(std::mt19937_64& random, const Case& c, int64_t all_places) {
    std::normal_distribution<float> normal(0, 1);
    stride = (c.q_heads + 2 * c.kv_heads) * c.head_dim + 8;
    for (int64_t i = 0; i < c.tokens * stride; ++i) {
      qkv.push_back(Round(c.type, normal(random)));
    }
    for (int i = 0; i < c.head_dim; ++i) {
      q_norm.push_back(1 + 0.2f * normal(random));
      k_norm.push_back(1 + 0.2f * normal(random));
    }
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      frequencies.push_back(std::pow(1e4, -2.0 * i / c.rope_dims));
    }
    places.resize(static_cast<size_t>(all_places));
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), random);
    places.resize(static_cast<size_t>(c.tokens));
    if (c.tokens > 2) places[1] = -1;
    for (int64_t i = 0; i < c.tokens; ++i) {
      positions.push_back(static_cast<int32_t>(random() % 131072));
    }
    if (c.tokens > 3) SpoilValues(c);
  }

  // In the last token's first head of V: a group with an infinity, one with a NaN, one of zeros (if
  // there are so many), and a large value.
  void SpoilValues(const Case& c) {
    uint16_t* v =
        &qkv[static_cast<size_t>((c.tokens - 1) * stride + (c.q_heads + c.kv_heads) * c.head_dim)];
    v[3] = Round(c.type, -INFINITY);
    v[40] = Round(c.type, NAN);
    if (c.head_dim > 64) std::fill(v + 64, v + 96, uint16_t{0});
    if (c.head_dim > 64) v[100] = Round(c.type, 6e4f);
  }

  // A turned, normalised element's error: the norm's factor is off by at most (13 additions +
  // division, sum's scale, square root, product with x and the weight) 2^-24 < 2^-20; cosine and
  // sine by 2 units of theirs and the angle's own rounding (pi 2^-25): 2^-22; products and their
  // sum: 2^-22 of |a| + |b|. With the head's largest for |a| and |b| that is below 2^-18.
  Exact Head(const Case& c, int64_t token, int head) const {
    Exact exact;
    exact.x.resize(static_cast<size_t>(c.head_dim));
    for (int i = 0; i < c.head_dim; ++i) {
      exact.x[static_cast<size_t>(i)] = static_cast<double>(
          Widen(c.type, qkv[static_cast<size_t>(token * stride + head * c.head_dim + i)]));
    }
    if (head < c.q_heads + c.kv_heads) {
      NormalizeAndTurn(c, token, head, exact.x);
      exact.error = 0x1p-18 * Largest(exact.x);
    }
    if (c.rotate) Rotate(&exact);
    return exact;
  }

  void NormalizeAndTurn(const Case& c, int64_t token, int head, std::vector<double>& x) const {
    if (c.norm) {
      double sum = 0;
      for (double value : x) sum += value * value;
      const double inverse = 1 / std::sqrt(sum / c.head_dim + static_cast<double>(epsilon));
      const auto& norm = head < c.q_heads ? q_norm : k_norm;
      for (size_t i = 0; i < x.size(); ++i) x[i] *= inverse * static_cast<double>(norm[i]);
    }
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      const double angle =
          positions[static_cast<size_t>(token)] * frequencies[static_cast<size_t>(i)];
      const auto a = static_cast<size_t>(c.pairs == RopePairs::kAdjacent ? 2 * i : i);
      const size_t b =
          c.pairs == RopePairs::kAdjacent ? a + 1 : a + static_cast<size_t>(c.rope_dims / 2);
      const double xa = x[a];
      x[a] = xa * std::cos(angle) - x[b] * std::sin(angle);
      x[b] = xa * std::sin(angle) + x[b] * std::cos(angle);
    }
  }
};

// Whether `got` is `exact` rounded to the type, after float32's error.
bool IsRounded(const Case& c, double got, double exact, double error, bool saturated) {
  if (saturated && c.type == ActivationType::kF16) exact = std::clamp(exact, -65504.0, 65504.0);
  if (std::isnan(exact)) return std::isnan(got);
  if (std::isinf(exact)) return got == exact;
  return std::fabs(got - exact) <= RoundingUnit(c.type) * std::fabs(exact) + error + 0x1p-25;
}

void CheckQ(const Case& c, const Inputs& in, const std::vector<uint16_t>& q, int64_t q_stride) {
  bool good = true;
  for (int64_t token = 0; token < c.tokens; ++token) {
    for (int head = 0; head < c.q_heads; ++head) {
      const Exact exact = in.Head(c, token, head);
      for (int i = 0; i < c.head_dim; ++i) {
        const auto at = static_cast<size_t>(token * q_stride + head * c.head_dim + i);
        good &= IsRounded(c, static_cast<double>(Widen(c.type, q[at])),
                          exact.x[static_cast<size_t>(i)], exact.error, false);
      }
    }
    for (int64_t i = c.q_heads * c.head_dim; i < q_stride; ++i) {
      const auto at = static_cast<size_t>(token * q_stride + i);
      good &= q[at] == (c.in_place ? in.qkv[at] : 0xffff);
    }
  }
  Expect(good, c.Text() + ": q");
}

// Codes of a row against QuantizeKvHead's of the same values in float32: how many differ; -1 where
// one differs by more than a level, or a scale by more than a unit.
int CompareCodes(const Case& c, HostKvHalf& got, int64_t row, const std::vector<double>& exact) {
  const KvDtype dtype = got.format == DeviceKvFormat::kInt8 ? KvDtype::kInt8 : KvDtype::kInt4;
  const std::vector<float> x(exact.begin(), exact.end());
  std::vector<uint8_t> groups(static_cast<size_t>(KvHeadBytes(dtype, c.head_dim)));
  QuantizeKvHead(dtype, x.data(), c.head_dim, groups.data());
  int different = 0;
  const int bytes = static_cast<int>(KvGroupBytes(dtype)) - 2;
  for (int group = 0; group < c.head_dim / kKvGroup; ++group) {
    const uint8_t* expected = &groups[static_cast<size_t>(group * (bytes + 2))];
    uint16_t scale;
    std::memcpy(&scale, expected, 2);
    if (std::abs(scale - got.Scales(row)[group]) > 1) return -1;
    if (scale != got.Scales(row)[group]) ++different;
    for (int i = 0; i < bytes; ++i) {
      const uint8_t a = expected[2 + i];
      const uint8_t b = got.Codes(row)[group * bytes + i];
      if (a == b) continue;
      ++different;
      const bool near =
          dtype == KvDtype::kInt8
              ? std::abs(static_cast<int8_t>(a) - static_cast<int8_t>(b)) <= 1
              : std::abs((a & 15) - (b & 15)) <= 1 && std::abs((a >> 4) - (b >> 4)) <= 1;
      if (!near) return -1;
    }
  }
  return different;
}

// Nearest of E4M3's numbers: half a unit of its 4 digits, or of its subnormals.
bool IsNearestE4m3(double got, double exact, double scale, double error) {
  if (!std::isfinite(exact)) return std::isnan(got);
  const double limit = 448 * scale;
  if (std::fabs(exact) > limit) return std::fabs(got - std::copysign(limit, exact)) < limit * 1e-6;
  return std::fabs(got - exact) <=
         std::max(0x1p-4 * std::fabs(exact), 0x1p-10 * scale) * 1.000001 + error;
}

struct Differences {
  int64_t codes = 0;
  int64_t all = 0;
};

bool CheckRow(const Case& c, HostKvHalf& got, int64_t row, int kv_head, const Exact& exact,
              Differences* differences) {
  if (HasGroupScales(got.format)) {
    const int different = CompareCodes(c, got, row, exact.x);
    differences->codes += std::max(different, 0);
    differences->all += got.row_bytes();
    // Where nothing was computed before it, int8 is the CPU's bit by bit.
    const bool same = got.format == DeviceKvFormat::kInt8 && exact.error == 0;
    return same ? different == 0 : different >= 0;
  }
  const std::vector<float> values = got.Read(row, kv_head);
  bool good = true;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto value = static_cast<double>(values[i]);
    const auto scale = static_cast<double>(got.HeadScale(kv_head));
    good &= got.format == DeviceKvFormat::k16Bit
                ? IsRounded(c, value, exact.x[i], exact.error, true)
                : IsNearestE4m3(value, exact.x[i], scale, exact.error);
  }
  return good;
}

// Every row of the cache: those of the tokens by their values, the others as they were.
void CheckCache(const Case& c, const Inputs& in, HostKv& got) {
  bool good = true;
  Differences differences;
  std::vector<bool> written(static_cast<size_t>(got.shape.rows()));
  for (int64_t token = 0; token < c.tokens; ++token) {
    const int64_t place = in.places[static_cast<size_t>(token)];
    if (place < 0) continue;
    for (int head = 0; head < c.kv_heads; ++head) {
      const int64_t row =
          got.shape.Row(place / c.block_tokens, head, static_cast<int>(place % c.block_tokens));
      written[static_cast<size_t>(row)] = true;
      good &= CheckRow(c, got.k, row, head, in.Head(c, token, c.q_heads + head), &differences);
      good &= CheckRow(c, got.v, row, head, in.Head(c, token, c.q_heads + c.kv_heads + head),
                       &differences);
    }
  }
  Expect(good, c.Text() + ": K and V");
  // A value within float32's error of a border between two codes is rare, and so is a scale within
  // it of one between two units; int4's scale, if off by a unit (2^-10), moves some borders.
  Expect(differences.codes <= 2 + differences.all / 50,
         c.Text() + ": " + std::to_string(differences.codes) + " of " +
             std::to_string(differences.all) + " codes are not the CPU's");
  bool untouched = true;
  for (int64_t row = 0; row < got.shape.rows(); ++row) {
    if (written[static_cast<size_t>(row)]) continue;
    for (HostKvHalf* half : {&got.k, &got.v}) {
      for (int i = 0; i < half->row_bytes(); ++i) untouched &= half->Codes(row)[i] == 0xff;
      for (int i = 0; !half->scales.empty() && i < c.head_dim / kKvGroup; ++i) {
        untouched &= half->Scales(row)[i] == 0xffff;
      }
    }
  }
  Expect(untouched, c.Text() + ": wrote other rows");
}

void RunCase(std::mt19937_64& random, const Case& c) {
  const int64_t blocks = (c.tokens + 8) / c.block_tokens + 1;
  HostKv host({c.format, c.type, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, blocks,
               c.block_tokens, c.kv_heads, c.head_dim});
  const Inputs in(random, c, blocks * c.block_tokens);
  const DeviceMemory positions(in.positions);
  const DeviceMemory places(in.places);
  const DeviceMemory q_norm(in.q_norm);
  const DeviceMemory k_norm(in.k_norm);
  const DeviceMemory frequencies = Upload(in.frequencies);
  std::vector<uint16_t> first_q;
  std::vector<uint8_t> first_codes;
  for (int run = 0; run < 2; ++run) {
    const DeviceMemory qkv(in.qkv);
    const int64_t q_stride = c.in_place ? in.stride : c.q_heads * c.head_dim + 8;
    const DeviceMemory q(std::vector<uint16_t>(static_cast<size_t>(c.tokens * q_stride), 0xffff));
    const DeviceMemory& out = c.in_place ? qkv : q;
    DeviceKvCopy device(host);
    const AppendKvArgs args{c.type,
                            qkv.As(),
                            in.stride,
                            out.As(),
                            q_stride,
                            c.tokens,
                            c.q_heads,
                            c.norm ? q_norm.As<float>() : nullptr,
                            c.norm ? k_norm.As<float>() : nullptr,
                            in.epsilon,
                            c.pairs,
                            c.rope_dims,
                            frequencies.As<double>(),
                            positions.As<int32_t>(),
                            c.rotate,
                            places.As<int64_t>(),
                            device.kv};
    const std::string wrong = AppendKv(args, nullptr);
    Expect(wrong.empty(), c.Text() + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    const auto got_q = out.Read<uint16_t>(0, static_cast<size_t>(c.tokens * q_stride));
    HostKv got = host;
    device.Read(&got);
    if (run == 0) {
      first_q = got_q;
      first_codes = got.v.codes;
      CheckQ(c, in, got_q, q_stride);
      CheckCache(c, in, got);
    } else {
      Expect(got_q == first_q && got.v.codes == first_codes, c.Text() + ": two runs differ");
    }
  }
}

void BadArguments() {
  const DeviceMemory memory(1 << 16);
  const DeviceKv kv{DeviceKvFormat::kInt8,
                    ActivationType::kF16,
                    memory.As(),
                    memory.As(),
                    memory.As<uint16_t>(),
                    memory.As<uint16_t>(),
                    nullptr,
                    nullptr,
                    1,
                    16,
                    2,
                    64};
  const AppendKvArgs good{ActivationType::kF16,
                          memory.As(),
                          6 * 64,
                          memory.As(),
                          6 * 64,
                          1,
                          2,
                          nullptr,
                          nullptr,
                          1e-6f,
                          RopePairs::kHalves,
                          64,
                          memory.As<double>(),
                          memory.As<int32_t>(),
                          true,
                          memory.As<int64_t>(),
                          kv};
  const auto refused = [&good](const char* part, auto spoil) {
    AppendKvArgs bad = good;
    spoil(bad);
    ExpectRefusal(AppendKv(bad, nullptr), part);
  };
  refused("head_dim is 80", [](AppendKvArgs& a) { a.kv.head_dim = 80; });
  refused("block_tokens is 24", [](AppendKvArgs& a) { a.kv.block_tokens = 24; });
  refused("kv_heads is 0", [](AppendKvArgs& a) { a.kv.kv_heads = 0; });
  refused("0 blocks", [](AppendKvArgs& a) { a.kv.blocks = 0; });
  refused("k_scales and v_scales", [](AppendKvArgs& a) { a.kv.k_scales = nullptr; });
  refused("k_head_scales", [](AppendKvArgs& a) { a.kv.format = DeviceKvFormat::kE4m3; });
  refused("k and v must be", [](AppendKvArgs& a) { a.kv.v = nullptr; });
  refused("kv.type", [](AppendKvArgs& a) { a.kv.type = ActivationType::kBF16; });
  refused("q_heads is 0", [](AppendKvArgs& a) { a.q_heads = 0; });
  refused("-1 tokens", [](AppendKvArgs& a) { a.tokens = -1; });
  refused("rope_dims is 66", [](AppendKvArgs& a) { a.rope_dims = 66; });
  refused("frequencies", [](AppendKvArgs& a) { a.frequencies = nullptr; });
  refused("at least 384", [](AppendKvArgs& a) { a.qkv_stride = 376; });
  refused("at least 128", [](AppendKvArgs& a) { a.q_stride = 127; });
  refused("q_stride must be qkv_stride", [](AppendKvArgs& a) { a.q_stride = 256; });
  refused("places", [](AppendKvArgs& a) { a.places = nullptr; });
  refused("norms' weights", [](AppendKvArgs& a) {
    a.q_norm = reinterpret_cast<const float*>(static_cast<const uint8_t*>(a.qkv) + 4);
  });
  AppendKvArgs none = good;
  none.tokens = 0;
  Expect(AppendKv(none, nullptr).empty(), "no tokens are allowed");
}

}  // namespace

void TestAppendKv(std::mt19937_64& random) {
  BadArguments();
  for (ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    for (DeviceKvFormat format : kKvFormats) {
      RunCase(random, {type, format, 64, 16, 3, 1, 1, false, RopePairs::kHalves, 64, false});
      RunCase(random, {type, format, 64, 32, 4, 2, 9, true, RopePairs::kAdjacent, 24, true});
      RunCase(random, {type, format, 128, 16, 5, 3, 7, true, RopePairs::kHalves, 128, false});
      RunCase(random, {type, format, 128, 64, 2, 1, 5, false, RopePairs::kHalves, 48, true});
      RunCase(random, {type, format, 256, 32, 4, 1, 6, true, RopePairs::kAdjacent, 256, false});
      RunCase(random, {type, format, 256, 16, 1, 2, 4, false, RopePairs::kAdjacent, 0, false});
      RunCase(random, {type, format, 64, 16, 3, 2, 5, false, RopePairs::kAdjacent, 64, true, true});
      RunCase(random, {type, format, 128, 32, 4, 2, 6, true, RopePairs::kHalves, 128, false, true});
      RunCase(random, {type, format, 256, 16, 2, 1, 5, true, RopePairs::kHalves, 256, true, true});
    }
  }
}

}  // namespace quern::kernels::testing
