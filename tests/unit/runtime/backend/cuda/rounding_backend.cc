#include "tests/unit/runtime/backend/cuda/rounding_backend.h"

#include <cstring>
#include <random>

#include "quern/kernels/numeric_types.h"
#include "runtime/backend/cpu/cpu_backend.h"

namespace quern::testing {
namespace {

using kernels::ActivationType;

class RoundingBackend : public CpuBackend {
 public:
  RoundingBackend(ActivationType type, uint64_t seed)
      : CpuBackend(*kernels::SelectCpuKernels(&error_), 1, int64_t{1} << 30),
        type_(type),
        random_(seed) {}

  void AddRmsNorm(const Tensor* x, const Vector* x_weight, const Vector* weight, float epsilon,
                  Tensor* residual, Tensor* out) override {
    CpuBackend::AddRmsNorm(x, x_weight, weight, epsilon, residual, out);
    if (out != nullptr) Round(*out);
  }
  void MatMul(const Tensor& x, std::initializer_list<Projection> projections) override {
    CpuBackend::MatMul(x, projections);
    for (const Projection& projection : projections) Round(*projection.out);
  }
  void Attention(const AttentionSpec& spec, Tensor* qkv, Tensor* out) override {
    CpuBackend::Attention(spec, qkv, out);
    Round(*out);
  }
  void GatedActivation(kernels::Gate kind, const Tensor& up, Tensor* gate) override {
    CpuBackend::GatedActivation(kind, up, gate);
    Round(*gate);
  }
  void Experts(int number, const Tensor& x, Tensor* out) override {
    CpuBackend::Experts(number, x, out);
    Round(*out);
  }
  void RmsNormRows(const Tensor& residual, std::span<const int32_t> rows, const Vector& weight,
                   float epsilon, Tensor* out) override {
    CpuBackend::RmsNormRows(residual, rows, weight, epsilon, out);
    Round(*out);
  }

 private:
  void Round(const Tensor& x) {
    auto* values = static_cast<float*>(x.data);
    const float half_unit = type_ == ActivationType::kF16 ? 0x1p-11f : 0x1p-8f;
    std::uniform_real_distribution<float> moved(-half_unit, half_unit);
    for (int64_t i = 0; i < x.rows * x.width; ++i) {
      values[i] += values[i] * moved(random_);
      if (type_ == ActivationType::kF16) {
        values[i] = kernels::HalfToFloat(kernels::FloatToHalf(values[i]));
        continue;
      }
      uint32_t bits;
      std::memcpy(&bits, &values[i], sizeof(bits));
      bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
      std::memcpy(&values[i], &bits, sizeof(bits));
    }
  }

  const char* error_ = nullptr;
  ActivationType type_;
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<Backend> MakeRoundingBackend(ActivationType type, uint64_t seed) {
  return std::make_unique<RoundingBackend>(type, seed);
}

}  // namespace quern::testing
