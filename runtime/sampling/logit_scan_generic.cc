#include "runtime/sampling/logit_scan_kernels.h"

#define QUERN_SCAN_NAMESPACE scan_generic
#define QUERN_SCAN_LANES 4
#include "runtime/sampling/logit_scan_loops.inc"
