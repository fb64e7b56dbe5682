#include <cstdlib>

#include "kernels/cpu/tables.h"
#include "quern/kernels/cpu_kernels.h"

#if defined(QUERN_X86)
#include <cpuid.h>
#endif

namespace quern::kernels {

#if defined(QUERN_X86)
namespace {

// Clang 16 has no __builtin_cpu_supports("f16c"). Its registers are AVX's.
bool CpuHasF16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace
#endif

bool CpuSupports(CpuIsa isa) {
  if (isa == CpuIsa::kScalar) return true;
#if defined(QUERN_X86)
  // The compiler's own check looks at CPUID and at what state the operating system saves (XGETBV).
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && CpuHasF16c();
  if (isa == CpuIsa::kAvx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

const CpuKernels& CpuKernelsFor(CpuIsa isa) {
#if defined(QUERN_X86)
  if (isa == CpuIsa::kAvx512) return kAvx512Kernels;
  if (isa == CpuIsa::kAvx2) return kAvx2Kernels;
#endif
  (void)isa;
  return kScalarKernels;
}

const CpuKernels* SelectCpuKernels(const char** error) {
  *error = nullptr;
  constexpr CpuIsa kBestFirst[] = {CpuIsa::kAvx512, CpuIsa::kAvx2, CpuIsa::kScalar};
  const char* wanted = std::getenv("QUERN_CPU_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  for (CpuIsa isa : kBestFirst) {
    if (CpuSupports(isa) && (any || std::string_view(wanted) == CpuKernelsFor(isa).name)) {
      return &CpuKernelsFor(isa);
    }
  }
  *error = "QUERN_CPU_ISA must be scalar, avx2 or avx512, and one that this processor has";
  return nullptr;
}

}  // namespace quern::kernels
