// Products of panels with columns of Q8_0 or Q8_1, for matrices of Q8_0 and Q5_0, and of Q4_1 and Q5_1.
//
// ggml's dot product for these types keeps eight sums in a 256-bit register: sum q takes the integer dot product of
// dword q of each block, converted to a float and times both scales, by a fused multiplication. The eight sums are
// added pairwise at the end: 4 apart, 2 apart, 1 apart. The same operations in the same order give the same bits, so
// that a text is the same with the kernels and without, alone and in a batch. Here eight registers hold the eight sums
// of sixteen rows each, and reduce_lanes adds the registers as ggml adds the lanes of one.
//
// Q4_1 and Q5_1 are multiplied with Q8_1, which is Q8_0 with the sum of each block's values. A ninth sum takes the
// minimum times that sum, by a fused multiplication, and is added last.
#pragma once

#include "panel.h"

enum {
  Q8_1_BYTES = 36,
  Q8_1_SUM_AT = 2,
  Q8_1_AT = 4,

  PACKED_REGISTERS = DWORDS + 1,                   // registers of a packed block: its values and its scales
  PACKED_WITH_MINIMUM = PACKED_REGISTERS + 1,  // and its minima
  Q8_0_COLUMNS = 2,               // columns at a time; each needs eight registers of sums
};

struct column_terms {  // what the kernels compute once for each block of a column
  float d;
  union {
    int32_t compensation[DWORDS];  // minus the offset of A's values times the sum of each dword's values
    float sum;                     // of Q8_1: the sum of the block's values times the scale
  };
};

struct columns {
  const uint8_t* b;
  size_t bytes;  // bytes from one column to the next
  const struct column_terms* terms;
  size_t blocks;
  float* c;
  size_t ldc;
};

INLINE __m512 reduce_lanes(const __m512 sum[DWORDS]) {
  const __m512 even = _mm512_add_ps(_mm512_add_ps(sum[0], sum[4]), _mm512_add_ps(sum[2], sum[6]));
  const __m512 odd = _mm512_add_ps(_mm512_add_ps(sum[1], sum[5]), _mm512_add_ps(sum[3], sum[7]));
  return _mm512_add_ps(even, odd);
}

INLINE float reduce_half(__m256 sum) {
  __m128 x = _mm_add_ps(_mm256_extractf128_ps(sum, 1), _mm256_castps256_ps128(sum));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

// The decode path: one column of Q8_0. Packing would be most of the work, so it is left out: a register holds the 32
// values of two rows, i and i + 8, and its sixteen sums are ggml's eight sums of both.
INLINE void decode_q8_0(const struct panel* panel, const struct columns* x) {
  const __m512i halves = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(8), 1);
  __m512 sum[8];
  UNROLL
  for (int i = 0; i < 8; i++) sum[i] = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    const size_t at = k * Q8_0_BYTES;
    prefetch_next_panel(panel, at, Q8_0_BYTES / 4 + 1);
    const __m512i b = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(x->b + at + Q8_0_AT)));
    const __m512i offset = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)x->terms[k].compensation));
    const __m512 d = _mm512_mul_ps(low_f16(gather_dwords(panel, at)), _mm512_set1_ps(x->terms[k].d));
    UNROLL
    for (int i = 0; i < 8; i++) {
      const __m512i rows = load_two_rows(panel->row[i] + at + Q8_0_AT, panel->row[i + 8] + at + Q8_0_AT);
      const __m512i a = _mm512_xor_si512(rows, _mm512_set1_epi8((char)0x80));
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(offset, a, b));
      sum[i] = _mm512_fmadd_ps(_mm512_permutexvar_ps(_mm512_add_epi32(halves, _mm512_set1_epi32(i)), d), dot, sum[i]);
    }
  }
  float out[PANEL_ROWS];
  UNROLL
  for (int i = 0; i < 8; i++) {
    out[i] = reduce_half(_mm512_castps512_ps256(sum[i]));
    out[i + 8] = reduce_half(_mm512_extractf32x8_ps(sum[i], 1));
  }
  _mm512_mask_storeu_ps(x->c, panel->store_mask, _mm512_loadu_ps(out));
}

INLINE int column_bytes(const int type) { return has_minimum(type) ? Q8_1_BYTES : Q8_0_BYTES; }
INLINE int column_values_at(const int type) { return has_minimum(type) ? Q8_1_AT : Q8_0_AT; }
INLINE int packed_registers(const int type) { return has_minimum(type) ? PACKED_WITH_MINIMUM : PACKED_REGISTERS; }

INLINE void q8_0_step(const int type, const int n, const __m512i* a, const struct columns* x, const uint8_t* b,
                      const struct column_terms* terms, __m512 sum[Q8_0_COLUMNS][DWORDS + 1]) {
  __m512 d[Q8_0_COLUMNS];
  UNROLL
  for (int i = 0; i < n; i++) {
    const struct column_terms* one = terms + i * x->blocks;
    d[i] = _mm512_mul_ps(_mm512_castsi512_ps(a[DWORDS]), _mm512_set1_ps(one->d));
    if (has_minimum(type))
      sum[i][DWORDS] = _mm512_fmadd_ps(_mm512_castsi512_ps(a[DWORDS + 1]), _mm512_set1_ps(one->sum), sum[i][DWORDS]);
  }
  UNROLL
  for (int q = 0; q < DWORDS; q++) {
    const __m512i rows = a[q];
    UNROLL
    for (int i = 0; i < n; i++) {
      const __m512i column = _mm512_set1_epi32(load_dword(b + i * x->bytes + 4 * q));
      const __m512i from = has_minimum(type) ? _mm512_setzero_si512()
                                             : _mm512_set1_epi32(terms[i * x->blocks].compensation[q]);
      sum[i][q] = _mm512_fmadd_ps(d[i], _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(from, rows, column)), sum[i][q]);
    }
  }
}

INLINE void pack_block(const int type, const struct panel* panel, size_t k, __m512i* out) {
  __m512i a[DWORDS];
  __m512 minimum;
  out[DWORDS] = _mm512_castps_si512(unpack_block(type, panel, k, a, &minimum));
  UNROLL
  for (int q = 0; q < DWORDS; q++) out[q] = a[q];
  if (has_minimum(type)) out[DWORDS + 1] = _mm512_castps_si512(minimum);
}

// Multiplies a panel with columns j to j + n. With `pack_now` it packs the panel on the way and leaves it in `packed`,
// unless there is one column, which needs it only once; otherwise the packed panel is there already.
INLINE void q8_0_tile(const int type, const bool pack_now, const int n, const struct panel* panel, __m512i* packed,
                      const struct columns* x, size_t j, struct prefetcher* c) {
  __m512 sum[Q8_0_COLUMNS][DWORDS + 1];
  UNROLL
  for (int i = 0; i < n; i++) UNROLL
  for (int q = 0; q <= DWORDS; q++) sum[i][q] = _mm512_setzero_ps();
  const uint8_t* b = x->b + j * x->bytes + column_values_at(type);
  const struct column_terms* terms = x->terms + j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, packed += packed_registers(type), b += column_bytes(type), terms++) {
    if (panel->stream)
      prefetch_weights(panel->stream, (int)block_bytes(type) / 4 + 1);
    else
      prefetch_step(c);
    __m512i once[PACKED_WITH_MINIMUM];
    if (pack_now) pack_block(type, panel, k, n == 1 ? once : packed);
    q8_0_step(type, n, pack_now && n == 1 ? once : packed, x, b, terms, sum);
  }
  UNROLL
  for (int i = 0; i < n; i++) {
    __m512 total = reduce_lanes(sum[i]);
    if (has_minimum(type)) total = _mm512_add_ps(total, sum[i][DWORDS]);
    _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, panel->store_mask, total);
  }
}

// Multiplies a panel with n columns. `packed` has room for the packed panel.
INLINE void q8_0_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                         __m512i* packed) {
  // The other types have to be unpacked in any case, so a single column of them takes the packed path.
  if (n == 1 && type == GGML_TYPE_Q8_0) {
    decode_q8_0(panel, x);
    return;
  }
  struct prefetcher c = prefetch_panel_after(panel->row, (n + Q8_0_COLUMNS - 1) / Q8_0_COLUMNS * x->blocks);
  if (n < Q8_0_COLUMNS) {
    q8_0_tile(type, true, 1, panel, packed, x, 0, &c);
    return;
  }
  q8_0_tile(type, true, Q8_0_COLUMNS, panel, packed, x, 0, &c);
  size_t j = Q8_0_COLUMNS;
  for (; j + Q8_0_COLUMNS <= n; j += Q8_0_COLUMNS) q8_0_tile(type, false, Q8_0_COLUMNS, panel, packed, x, j, &c);
  if (j < n) q8_0_tile(type, false, 1, panel, packed, x, j, &c);
}
