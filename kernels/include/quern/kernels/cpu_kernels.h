#pragma once

#include <string_view>

#include "quern/kernels/attention.h"
#include "quern/kernels/elementwise.h"
#include "quern/kernels/gated_activation.h"
#include "quern/kernels/hadamard.h"
#include "quern/kernels/head_screen.h"
#include "quern/kernels/matmul.h"
#include "quern/kernels/quantize_activations.h"
#include "quern/kernels/rms_norm.h"
#include "quern/kernels/rope.h"

namespace quern::kernels {

// Instruction sets that the CPU kernels are compiled for.
enum class CpuIsa {
  kScalar,  // any x86-64 (or other) processor
  kAvx2,    // AVX2, FMA, F16C
  kAvx512,  // AVX-512 F, BW, VL, DQ and VNNI
};

// The ops for one instruction set. All are reentrant and keep no state.
struct CpuKernels {
  CpuIsa isa;
  const char* name;  // "scalar", "avx2", "avx512"
  int lanes;         // rows of a packed tile
  QuantizeActivationsFn quantize_activations;
  MatMulFn matmul;
  ScreenFn screen;
  RefineFn refine;
  RmsNormFn rms_norm;
  RopeFn rope;
  GatedActivationFn gated_activation;
  AddFn add;
  SoftcapFn softcap;
  AttentionFn attention;
  AttentionSegmentFn attention_segment;
  CombineAttentionFn combine_attention;
  AppendKvFn append_kv;
  HadamardFn hadamard;
};

// Whether this processor and operating system can run `isa`, and the build has it.
bool CpuSupports(CpuIsa isa);

// The kernels of `isa`, which CpuSupports.
const CpuKernels& CpuKernelsFor(CpuIsa isa);

// The best that this processor has; QUERN_CPU_ISA ("scalar", "avx2", "avx512") in the environment
// asks for less. Null, with `error` set, where the variable names none, or one that cannot run
// here.
const CpuKernels* SelectCpuKernels(const char** error);

}  // namespace quern::kernels
