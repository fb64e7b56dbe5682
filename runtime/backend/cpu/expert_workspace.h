#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/backend/backend.h"
#include "runtime/backend/cpu/activation_buffer.h"
#include "runtime/backend/cpu/aligned_memory.h"
#include "runtime/backend/cpu/expert_plan.h"

namespace quern {

// What CpuBackend::Experts needs beside its input and output, for the largest of several specs;
// layers take turns in it. Grown as steps need it.
class ExpertWorkspace {
 public:
  // From the next Reserve on.
  void Fit(const ExpertsSpec& spec) {
    experts_ = std::max(experts_, spec.gate->experts());
    top_k_ = std::max(top_k_, spec.top_k);
    width_ = std::max(width_, spec.gate->cols());
    ffn_width_ = std::max(ffn_width_, spec.gate->rows());
  }

  // Room for steps of `rows` from now on. False when the system has no memory.
  bool Reserve(int64_t rows) {
    if (experts_ == 0) return true;
    const int64_t pairs = rows * top_k_;
    plan_.Reserve(pairs, experts_);
    return Grow(rows * experts_, &logits_) && Grow(pairs * width_, &rows_) &&
           Grow(pairs * ffn_width_, &gate_) && Grow(pairs * ffn_width_, &up_) &&
           quantized_.Reserve(pairs, std::max(width_, ffn_width_));
  }

  float* logits() const { return logits_.as<float>(); }  // [rows, experts]
  // [pairs, ...], sorted by expert as the plan says.
  float* rows() const { return rows_.as<float>(); }  // [width]: what goes in, then what comes out
  float* gate() const { return gate_.as<float>(); }  // [ffn_width]
  float* up() const { return up_.as<float>(); }      // [ffn_width]
  ActivationBuffer& quantized() { return quantized_; }
  ExpertPlan& plan() { return plan_; }

 private:
  static bool Grow(int64_t floats, AlignedMemory* memory) {
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    if (memory->size() < bytes) *memory = AlignedMemory(bytes);
    return memory->size() >= bytes;
  }

  int experts_ = 0;  // 0: there are none
  int top_k_ = 0;
  int64_t width_ = 0;
  int64_t ffn_width_ = 0;
  AlignedMemory logits_, rows_, gate_, up_;
  ActivationBuffer quantized_;
  ExpertPlan plan_;
};

}  // namespace quern
