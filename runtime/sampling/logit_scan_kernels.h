#pragma once

#include <cstddef>
#include <cstdint>

// The loops of logit_scan.h, once per instruction set; each set's file defines its namespace by
// including logit_scan_loops.inc under other compiler flags. Pointers are to n floats; outputs per
// chunk to NumScanChunks(n).
#define QUERN_DECLARE_SCAN_LOOPS(isa)                                                          \
  namespace quern::scan_##isa {                                                                \
    bool ChunkMax(const float* logits, size_t n, float* chunk_max);                            \
    void ChunkSumExp(const float* logits, size_t n, float max, float scale, float* chunk_sum); \
    void ChunkMoments(const float* logits, size_t n, float max, float scale, float* chunk_sum, \
                      float* moment);                                                          \
    void ChunkSumExpNear(const float* logits, size_t n, const float* chunk_max, float max,     \
                         float scale, float centre, float reach, float* chunk_sum);            \
    void Exp(const float* in, size_t n, float max, float scale, float* out);                   \
  }

QUERN_DECLARE_SCAN_LOOPS(generic)
#if defined(__x86_64__)
QUERN_DECLARE_SCAN_LOOPS(avx2)
QUERN_DECLARE_SCAN_LOOPS(avx512)
#endif
