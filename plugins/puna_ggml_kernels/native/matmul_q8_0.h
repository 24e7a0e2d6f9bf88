// Products of strips of A with columns, for types whose values ggml multiplies eight lanes at a time (Q8_0 and Q5_0:
// neither is repacked on x86): an element of C is eight sums over blocks, one for each dword of 32 values, added up at
// the end in a certain order. The same operations in the same order give the same bits, so that a text is the same with
// these kernels and without, alone and in company. Here a register has one lane's sum for each of 16 rows.
#pragma once

#include "panel.h"

enum {
  PACKED = DWORDS + 1,  // registers of a turned block: its values, its scales
  GROUP = 2,            // columns at a time: each has eight registers of sums
};

struct side {  // of a block of a column
  float d;
  int32_t offset[DWORDS];  // what makes up for the offset of A's values, lane by lane
};

struct columns {
  const uint8_t* b;
  size_t bytes;  // from a column to the next
  const struct side* side;
  size_t blocks;
  float* c;
  size_t ldc;
};

INLINE __m512 total(const __m512 sum[DWORDS]) {
  const __m512 even = _mm512_add_ps(_mm512_add_ps(sum[0], sum[4]), _mm512_add_ps(sum[2], sum[6]));
  const __m512 odd = _mm512_add_ps(_mm512_add_ps(sum[1], sum[5]), _mm512_add_ps(sum[3], sum[7]));
  return _mm512_add_ps(even, odd);
}

INLINE float total_of_half(__m256 sum) {
  __m128 x = _mm_add_ps(_mm256_extractf128_ps(sum, 1), _mm256_castps256_ps128(sum));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

// One column of Q8_0, where turning would be most of the work: a register has all lanes of two rows, i and i + 8.
INLINE void one_q8_0(const struct strip* s, const struct columns* x) {
  const __m512i halves = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(8), 1);
  __m512 sum[8];
  UNROLL
  for (int i = 0; i < 8; i++) sum[i] = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    const size_t at = k * Q8_0_BYTES;
    fetch_ahead(s->row, at);
    const __m512i b = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(x->b + at + Q8_0_AT)));
    const __m512i offset = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)x->side[k].offset));
    const __m512 d = _mm512_mul_ps(low_f16(gather32(s, at)), _mm512_set1_ps(x->side[k].d));
    UNROLL
    for (int i = 0; i < 8; i++) {
      const __m512i rows = two_rows(s->row[i] + at + Q8_0_AT, s->row[i + 8] + at + Q8_0_AT);
      const __m512i a = _mm512_xor_si512(rows, _mm512_set1_epi8((char)0x80));
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(offset, a, b));
      sum[i] = _mm512_fmadd_ps(_mm512_permutexvar_ps(_mm512_add_epi32(halves, _mm512_set1_epi32(i)), d), dot, sum[i]);
    }
  }
  float out[ROWS];
  UNROLL
  for (int i = 0; i < 8; i++) {
    out[i] = total_of_half(_mm512_castps512_ps256(sum[i]));
    out[i + 8] = total_of_half(_mm512_extractf32x8_ps(sum[i], 1));
  }
  _mm512_mask_storeu_ps(x->c, s->keep, _mm512_loadu_ps(out));
}

INLINE void lane_step(const int n, const __m512i a[PACKED], const struct columns* x, const uint8_t* b,
                      const struct side* side, __m512 sum[GROUP][DWORDS]) {
  __m512 d[GROUP];
  UNROLL
  for (int i = 0; i < n; i++)
    d[i] = _mm512_mul_ps(_mm512_castsi512_ps(a[DWORDS]), _mm512_set1_ps(side[i * x->blocks].d));
  UNROLL
  for (int q = 0; q < DWORDS; q++) {
    const __m512i rows = a[q];
    UNROLL
    for (int i = 0; i < n; i++) {
      const __m512i column = _mm512_set1_epi32(dword(b + i * x->bytes + 4 * q));
      const __m512i dot = _mm512_dpbusd_epi32(_mm512_set1_epi32(side[i * x->blocks].offset[q]), rows, column);
      sum[i][q] = _mm512_fmadd_ps(d[i], _mm512_cvtepi32_ps(dot), sum[i][q]);
    }
  }
}

INLINE void pack(const int type, const struct strip* s, size_t k, __m512i out[PACKED]) {
  __m512i a[DWORDS];
  out[DWORDS] = _mm512_castps_si512(unpack_block(type, s, k, a));
  UNROLL
  for (int q = 0; q < DWORDS; q++) out[q] = a[q];
}

// Columns j to j + n. With `fresh` the strip is turned on the way and left in `packed`, else it is there.
INLINE void lane_tile(const int type, const bool fresh, const int n, const struct strip* s, __m512i* packed,
                      const struct columns* x, size_t j, struct coming* c) {
  __m512 sum[GROUP][DWORDS];
  UNROLL
  for (int i = 0; i < n; i++) UNROLL
  for (int q = 0; q < DWORDS; q++) sum[i][q] = _mm512_setzero_ps();
  const uint8_t* b = x->b + j * x->bytes + Q8_0_AT;
  const struct side* side = x->side + j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, packed += PACKED, b += Q8_0_BYTES, side++) {
    fetch_step(c);
    if (fresh) pack(type, s, k, packed);
    lane_step(n, packed, x, b, side, sum);
  }
  UNROLL
  for (int i = 0; i < n; i++) _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, s->keep, total(sum[i]));
}

// `packed`: room for the turned strip.
INLINE void lane_product(const int type, const struct strip* s, const struct columns* x, size_t n, __m512i* packed) {
  if (n == 1 && type == GGML_TYPE_Q8_0) {
    one_q8_0(s, x);
    return;
  }
  struct coming c = coming_strip(s->row, (n + GROUP - 1) / GROUP * x->blocks);
  if (n < GROUP) {
    lane_tile(type, true, 1, s, packed, x, 0, &c);
    return;
  }
  lane_tile(type, true, GROUP, s, packed, x, 0, &c);
  size_t j = GROUP;
  for (; j + GROUP <= n; j += GROUP) lane_tile(type, false, GROUP, s, packed, x, j, &c);
  if (j < n) lane_tile(type, false, 1, s, packed, x, j, &c);
}
