// Products of panels with columns of Q8_0, for matrices of Q4_0, IQ4_NL and MXFP4.
//
// On x86 ggml repacks these types into interleaved rows and multiplies those with kernels that keep one sum for each row.
// Each block's integer dot product over all 32 values is exact; it becomes a float at the end of the block, and a fused
// multiplication by the product of both scales adds it to the sum. With lane = row the order of additions is the same,
// so the bits are too, and the matrix need not be repacked: llama.cpp is asked not to do so (repacking.py).
#pragma once

#include "matmul_q8_0.h"

enum { Q4_0_COLUMNS = 8 };  // columns at a time, at most

INLINE void q4_0_tile(const int type, const int n, const struct panel* panel, const __m512i* packed,
                      const struct columns* x, size_t j) {
  __m512 sum[Q4_0_COLUMNS];
  UNROLL
  for (int i = 0; i < n; i++) sum[i] = _mm512_setzero_ps();
  const uint8_t* b = x->b + j * x->bytes + Q8_0_AT;
  const struct column_terms* terms = x->terms + j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, b += Q8_0_BYTES, terms++) {
    __m512i a[PACKED_REGISTERS];
    if (packed) UNROLL
    for (int q = 0; q < PACKED_REGISTERS; q++) a[q] = packed[k * PACKED_REGISTERS + q];
    else pack_block(type, panel, k, a);
    UNROLL
    for (int i = 0; i < n; i++) {
      const struct column_terms* one = terms + i * x->blocks;
      __m512i dot = _mm512_set1_epi32(one->compensation[0]);
      UNROLL
      for (int q = 0; q < DWORDS; q++)
        dot = _mm512_dpbusd_epi32(dot, a[q], _mm512_set1_epi32(load_dword(b + i * x->bytes + 4 * q)));
      const __m512 d = _mm512_mul_ps(_mm512_castsi512_ps(a[DWORDS]), _mm512_set1_ps(one->d));
      sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), d, sum[i]);
    }
  }
  UNROLL
  for (int i = 0; i < n; i++) _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, panel->store_mask, sum[i]);
}

INLINE void q4_0_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                         __m512i* packed) {
  switch (n) {
    case 1:
      q4_0_tile(type, 1, panel, NULL, x, 0);
      return;
    case 2:
      q4_0_tile(type, 2, panel, NULL, x, 0);
      return;
    case 3:
      q4_0_tile(type, 3, panel, NULL, x, 0);
      return;
    case 4:
      q4_0_tile(type, 4, panel, NULL, x, 0);
      return;
    case Q4_0_COLUMNS:
      q4_0_tile(type, Q4_0_COLUMNS, panel, NULL, x, 0);
      return;
  }
  for (size_t k = 0; k < x->blocks; k++) pack_block(type, panel, k, packed + k * PACKED_REGISTERS);
  size_t j = 0;
  for (; j + Q4_0_COLUMNS <= n; j += Q4_0_COLUMNS) q4_0_tile(type, Q4_0_COLUMNS, panel, packed, x, j);
  for (; j + 2 <= n; j += 2) q4_0_tile(type, 2, panel, packed, x, j);
  if (j < n) q4_0_tile(type, 1, panel, packed, x, j);
}
