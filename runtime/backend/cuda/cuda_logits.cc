#include <algorithm>
#include <cassert>
#include <cstring>

#include "quern/kernels/numeric_types.h"
#include "quern/kernels/sample_tokens.h"
#include "quern/kernels/softcap_logits.h"
#include "runtime/backend/cuda/cuda_backend.h"

namespace quern {
namespace {

// Of what is copied to the host.
constexpr size_t kCopyBytes = 4 << 20;

int64_t LogitsStride(int64_t vocabulary) { return (vocabulary + 3) / 4 * 4; }

}  // namespace

Status CudaBackend::ReserveLogits(int64_t rows, int64_t vocabulary) {
  const auto count = static_cast<size_t>(rows);
  const auto bytes = count * static_cast<size_t>(LogitsStride(vocabulary)) * sizeof(float);
  QUERN_TRY(Grow(logits_, bytes, "the logits of a step"));
  QUERN_TRY(Grow(draws_, count * sizeof(TokenDraw), "how tokens are drawn"));
  QUERN_TRY(Grow(drawn_, count * sizeof(int32_t), "tokens"));
  return Grow(draw_workspace_, kernels::SampleWorkspaceBytes(rows, vocabulary), "drawing tokens");
}

Status CudaBackend::MakeLogits(const Tensor& x, const Matrix& head, float softcap) {
  const int64_t stride = LogitsStride(head.rows());
  QUERN_TRY(Status(status_));
  QUERN_TRY(ReserveLogits(x.rows, head.rows()));
  Multiply(x, OnDevice(head), logits_.as<float>(), stride, true);
  if (softcap > 0) {
    Run(kernels::SoftcapLogits({softcap, x.rows * stride, logits_.as<float>()}, stream_.get()));
  }
  return status_;
}

Status CudaBackend::Logits(const Tensor& x, const Matrix& head, float softcap,
                           std::span<const int32_t> /*ranks: all are given*/,
                           std::span<float> logits) {
  const int64_t vocabulary = head.rows();
  const int64_t stride = LogitsStride(vocabulary);
  assert(std::ssize(logits) >= x.rows * vocabulary);
  QUERN_TRY(MakeLogits(x, head, softcap));
  const auto bytes = static_cast<size_t>(x.rows * stride) * sizeof(float);
  if (stride == vocabulary) return CopyToHost(logits_.as<float>(), bytes, logits.data());
  for (int64_t row = 0; row < x.rows; ++row) {
    QUERN_TRY(CopyToHost(logits_.as<float>() + row * stride,
                         static_cast<size_t>(vocabulary) * sizeof(float),
                         logits.data() + row * vocabulary));
  }
  return {};
}

Status CudaBackend::Draw(const Tensor& x, const Matrix& head, float softcap,
                         std::span<const TokenDraw> draws, std::span<int32_t> tokens) {
  assert(std::ssize(draws) == x.rows && std::ssize(tokens) == x.rows);
  QUERN_TRY(MakeLogits(x, head, softcap));
  // From pageable memory: CUDA copies it aside before it returns.
  QUERN_TRY(CudaStatus(cudaMemcpyAsync(draws_.as<TokenDraw>(), draws.data(), draws.size_bytes(),
                                       cudaMemcpyHostToDevice, stream_.get()),
                       "copying how tokens are drawn"));
  kernels::SampleTokensArgs args{};
  args.logits = logits_.as<float>();
  args.logits_stride = LogitsStride(head.rows());
  args.vocab = head.rows();
  args.rows = x.rows;
  args.params = draws_.as<TokenDraw>();
  for (const TokenDraw& draw : draws) {
    args.any_draw = args.any_draw || draw.temperature > 0;
    args.any_top_k = args.any_top_k || draw.top_k > 1;
    args.any_top_p = args.any_top_p || draw.top_p < 1;
  }
  args.ids = drawn_.as<int32_t>();
  args.workspace = draw_workspace_.as<void>();
  args.workspace_size = draw_workspace_.size();
  Run(kernels::SampleTokens(args, stream_.get()));
  QUERN_TRY(Status(status_));
  return CopyToHost(drawn_.as<int32_t>(), tokens.size_bytes(), tokens.data());
}

Status CudaBackend::Read(const Tensor& x, std::span<float> to) {
  assert(std::ssize(to) >= x.rows * x.width);
  QUERN_TRY(Status(status_));
  std::vector<uint16_t> bits(static_cast<size_t>(x.rows * x.width));
  QUERN_TRY(CopyToHost(x.data, bits.size() * sizeof(uint16_t), bits.data()));
  const bool half = options_.activations == kernels::ActivationType::kF16;
  std::ranges::transform(bits, to.begin(), half ? kernels::HalfToFloat : kernels::Bf16ToFloat);
  return {};
}

Status CudaBackend::CopyToHost(const void* from, size_t bytes, void* to) {
  const size_t parts = (bytes + kCopyBytes - 1) / kCopyBytes;
  Note(to_host_.Reserve(bytes, "pinned memory for logits"));
  while (arrived_.size() < parts) arrived_.emplace_back();
  const auto part_bytes = [&](size_t part) {
    return std::min(kCopyBytes, bytes - part * kCopyBytes);
  };
  auto* pinned = to_host_.as<std::byte>();
  for (size_t part = 0; part < parts && status_.ok(); ++part) {
    Note(CudaStatus(cudaMemcpyAsync(pinned + part * kCopyBytes,
                                    static_cast<const std::byte*>(from) + part * kCopyBytes,
                                    part_bytes(part), cudaMemcpyDeviceToHost, stream_.get()),
                    "copying what a step gave"));
    Note(arrived_[part].Record(stream_.get(), wait_));
  }
  for (size_t part = 0; part < parts && status_.ok(); ++part) {
    Note(Wait(arrived_[part], "a step on the GPU"));
    std::memcpy(static_cast<std::byte*>(to) + part * kCopyBytes, pinned + part * kCopyBytes,
                part_bytes(part));
  }
  return status_;
}

}  // namespace quern
