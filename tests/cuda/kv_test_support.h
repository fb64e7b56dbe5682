#pragma once

#include <cmath>

#include "quern/kernels/device_kv.h"
#include "tests/cuda/device_checks.h"

// A GPU's KV cache as the host sees it, for the tests of what writes and reads it.
namespace quern::kernels::testing {

inline const char* Name(DeviceKvFormat format) {
  constexpr const char* kNames[] = {"16-bit", "int8", "int4", "e4m3"};
  return kNames[static_cast<int>(format)];
}
constexpr DeviceKvFormat kKvFormats[] = {DeviceKvFormat::k16Bit, DeviceKvFormat::kInt8,
                                         DeviceKvFormat::kInt4, DeviceKvFormat::kE4m3};

// Half a unit in the last place, of a value of 1.
inline double RoundingUnit(ActivationType type) {
  return type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
}

// K or V. Every byte is 0xff at first, which is NaN wherever it is no integer.
struct HostKvHalf {
  DeviceKvFormat format;
  ActivationType type;
  int head_dim;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  std::vector<float> head_scales;

  HostKvHalf(DeviceKvFormat of, ActivationType type_in, int dim, int64_t rows, int kv_heads)
      : format(of),
        type(type_in),
        head_dim(dim),
        codes(static_cast<size_t>(rows * DeviceKvRowBytes(of, dim)), 0xff),
        scales(HasGroupScales(of) ? static_cast<size_t>(rows * dim / kKvGroup) : 0, 0xffff),
        head_scales(of == DeviceKvFormat::kE4m3 ? static_cast<size_t>(kv_heads) : 0) {}

  int row_bytes() const { return DeviceKvRowBytes(format, head_dim); }
  uint8_t* Codes(int64_t row) { return &codes[static_cast<size_t>(row * row_bytes())]; }
  uint16_t* Scales(int64_t row) {
    return scales.empty() ? nullptr : &scales[static_cast<size_t>(row * head_dim / kKvGroup)];
  }
  float HeadScale(int kv_head) const {
    return head_scales.empty() ? 1 : head_scales[static_cast<size_t>(kv_head)];
  }
  std::vector<float> Read(int64_t row, int kv_head) {
    std::vector<float> x(static_cast<size_t>(head_dim));
    ref::ReadDeviceKvRow(format, type, Codes(row), Scales(row), HeadScale(kv_head), head_dim,
                         x.data());
    return x;
  }

  // A row of random values of about unit size.
  void Randomize(std::mt19937_64& random, int64_t row) {
    std::normal_distribution<float> normal(0, 1);
    uint8_t* bytes = Codes(row);
    for (int i = 0; i < row_bytes(); ++i) {
      bytes[i] = static_cast<uint8_t>(random());
      if (format == DeviceKvFormat::kInt8 && bytes[i] == 0x80) bytes[i] = 0x81;
      if (format == DeviceKvFormat::kE4m3) bytes[i] = static_cast<uint8_t>(bytes[i] & 0xc7);
      if (format == DeviceKvFormat::kE4m3) bytes[i] ^= static_cast<uint8_t>(random() % 4 << 3);
    }
    if (format == DeviceKvFormat::k16Bit) {
      for (int i = 0; i < head_dim; ++i) {
        const uint16_t bits = Round(type, normal(random));
        std::memcpy(bytes + 2 * i, &bits, 2);
      }
    }
    if (!scales.empty()) {
      for (int i = 0; i < head_dim / kKvGroup; ++i) {
        Scales(row)[i] = FloatToHalf(0.014f * (0.2f + std::fabs(normal(random))));
      }
    }
  }
};

struct HostKv {
  DeviceKv shape;
  HostKvHalf k;
  HostKvHalf v;

  explicit HostKv(const DeviceKv& of)
      : shape(of),
        k(DeviceKeyFormat(of.format), of.type, of.head_dim, of.rows(), of.kv_heads),
        v(of.format, of.type, of.head_dim, of.rows(), of.kv_heads) {
    // E4M3's codes of Randomize are up to 1.75 * 2^2.
    for (size_t i = 0; i < k.head_scales.size(); ++i) {
      k.head_scales[i] = 0.4f + 0.1f * static_cast<float>(i);
      v.head_scales[i] = 0.5f + 0.1f * static_cast<float>(i);
    }
  }
};

template <typename T>
DeviceMemory Upload(const std::vector<T>& host) {
  return host.empty() ? DeviceMemory(16) : DeviceMemory(host);
}

// A copy on the device.
struct DeviceKvCopy {
  DeviceMemory k, v, k_scales, v_scales, k_head_scales, v_head_scales;
  DeviceKv kv;

  explicit DeviceKvCopy(const HostKv& host)
      : k(host.k.codes),
        v(host.v.codes),
        k_scales(Upload(host.k.scales)),
        v_scales(Upload(host.v.scales)),
        k_head_scales(Upload(host.k.head_scales)),
        v_head_scales(Upload(host.v.head_scales)),
        kv(host.shape) {
    kv.k = k.As();
    kv.v = v.As();
    if (HasGroupScales(kv.format)) {
      kv.k_scales = k_scales.As<uint16_t>();
      kv.v_scales = v_scales.As<uint16_t>();
    }
    if (kv.format == DeviceKvFormat::kE4m3) {
      kv.k_head_scales = k_head_scales.As<float>();
      kv.v_head_scales = v_head_scales.As<float>();
    }
  }

  void Read(HostKv* host) const {
    host->k.codes = k.Read<uint8_t>(0, host->k.codes.size());
    host->v.codes = v.Read<uint8_t>(0, host->v.codes.size());
    if (!HasGroupScales(kv.format)) return;
    host->k.scales = k_scales.Read<uint16_t>(0, host->k.scales.size());
    host->v.scales = v_scales.Read<uint16_t>(0, host->v.scales.size());
  }
};

}  // namespace quern::kernels::testing
