// Products of strips of A with columns, for blocks of 32 values of rows that ggml repacks (Q4_0): an element of C is
// one sum over blocks, each exact up to its end.
#pragma once

#include "matmul_q8_0.h"

enum { ROW_GROUP = 8 };  // columns at a time: at most

INLINE void row_tile(const int type, const int n, const struct strip* s, const __m512i* packed, const struct columns* x,
                     size_t j) {
  __m512 sum[ROW_GROUP];
  UNROLL
  for (int i = 0; i < n; i++) sum[i] = _mm512_setzero_ps();
  const uint8_t* b = x->b + j * x->bytes + Q8_0_AT;
  const struct side* side = x->side + j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, b += Q8_0_BYTES, side++) {
    __m512i a[PACKED];
    if (packed) UNROLL
    for (int q = 0; q < PACKED; q++) a[q] = packed[k * PACKED + q];
    else pack(type, s, k, a);
    UNROLL
    for (int i = 0; i < n; i++) {
      const struct side* one = side + i * x->blocks;
      __m512i dot = _mm512_set1_epi32(one->offset[0]);
      UNROLL
      for (int q = 0; q < DWORDS; q++)
        dot = _mm512_dpbusd_epi32(dot, a[q], _mm512_set1_epi32(dword(b + i * x->bytes + 4 * q)));
      const __m512 d = _mm512_mul_ps(_mm512_castsi512_ps(a[DWORDS]), _mm512_set1_ps(one->d));
      sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), d, sum[i]);
    }
  }
  UNROLL
  for (int i = 0; i < n; i++) _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, s->keep, sum[i]);
}

INLINE void row_product(const int type, const struct strip* s, const struct columns* x, size_t n, __m512i* packed) {
  switch (n) {
    case 1: row_tile(type, 1, s, NULL, x, 0); return;
    case 2: row_tile(type, 2, s, NULL, x, 0); return;
    case 3: row_tile(type, 3, s, NULL, x, 0); return;
    case 4: row_tile(type, 4, s, NULL, x, 0); return;
    case ROW_GROUP: row_tile(type, ROW_GROUP, s, NULL, x, 0); return;
  }
  for (size_t k = 0; k < x->blocks; k++) pack(type, s, k, packed + k * PACKED);
  size_t j = 0;
  for (; j + ROW_GROUP <= n; j += ROW_GROUP) row_tile(type, ROW_GROUP, s, packed, x, j);
  for (; j + 2 <= n; j += 2) row_tile(type, 2, s, packed, x, j);
  if (j < n) row_tile(type, 1, s, packed, x, j);
}
