#include "tests/unit/runtime/backend/cuda/router_gaps.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "runtime/backend/cpu/cpu_backend.h"

namespace quern::testing {
namespace {

double RelativeGap(std::span<float> logits, size_t chosen) {
  std::ranges::sort(logits, std::greater<>());
  double sum = 0, squares = 0;
  for (const double logit : logits) sum += logit, squares += logit * logit;
  const auto count = static_cast<double>(logits.size());
  const double deviation = std::sqrt(squares / count - sum * sum / (count * count));
  return (double{logits[chosen - 1]} - logits[chosen]) / deviation;
}

class GapBackend : public CpuBackend {
 public:
  explicit GapBackend(std::vector<double>* gaps)
      : CpuBackend(*kernels::SelectCpuKernels(&error_), 1, int64_t{1} << 30), gaps_(gaps) {}

  int AddExperts(const ExpertsSpec& spec) override {
    specs_.push_back(spec);
    return CpuBackend::AddExperts(spec);
  }
  Status RunStep(const ForwardBatch& batch, const std::function<void()>& layers) override {
    gaps_->assign(batch.tokens.size(), std::numeric_limits<double>::infinity());
    return CpuBackend::RunStep(batch, layers);
  }
  void Experts(int number, const Tensor& x, Tensor* out) override {
    const ExpertsSpec& spec = specs_[static_cast<size_t>(number)];
    const auto experts = static_cast<size_t>(spec.gate->experts());
    const auto chosen = static_cast<size_t>(spec.top_k);
    if (chosen < experts) {
      std::vector<float> logits(static_cast<size_t>(x.rows) * experts);
      Tensor to{x.rows, spec.gate->experts(), logits.data()};
      MatMul(x, {{spec.router, &to}});
      for (size_t row = 0; row < gaps_->size(); ++row) {
        const auto of_row = std::span(logits).subspan(row * experts, experts);
        (*gaps_)[row] = std::min((*gaps_)[row], RelativeGap(of_row, chosen));
      }
    }
    CpuBackend::Experts(number, x, out);
  }

 private:
  const char* error_ = nullptr;
  std::vector<double>* gaps_;
  std::vector<ExpertsSpec> specs_;
};

}  // namespace

std::unique_ptr<Backend> MakeGapBackend(std::vector<double>* gaps) {
  return std::make_unique<GapBackend>(gaps);
}

}  // namespace quern::testing
