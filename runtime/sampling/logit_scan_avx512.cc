#include "runtime/sampling/logit_scan_kernels.h"

#if defined(__x86_64__)
#define QUERN_SCAN_NAMESPACE scan_avx512
#define QUERN_SCAN_LANES 16
#include "runtime/sampling/logit_scan_loops.inc"
#endif
