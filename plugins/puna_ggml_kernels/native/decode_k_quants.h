// Single columns of K types, and products of any number of columns in the order of tiles.
//
// By default all K types have the order of ggml's tiles (matmul_k_quants.h), whatever the number of columns: one sum for
// each row, to which each super-block adds once. So a sequence has the same bits alone and in any company.
//
// With one column, packing a panel is most of the work for Q5_K, Q6_K and IQ4_XS. Here two rows take half a register
// each, as they are in the file, and a super-block leaves eight integers for each row. They are kept until all sixteen rows
// of a panel are through, so that one row follows the other in memory. Then they are added across, which is exact, and become
// floats with lane = row, in the order of tiles.
//
// With `exact` a single column has ggml's order of dot products: eight sums for each row, here for Q6_K (decode_q6_k).
#pragma once

#include "matmul_k_quants.h"
#include "matmul_q4_0.h"

enum { PAIRS_AHEAD = 8 << 10 };  // bytes behind a row in which the next rows are prefetched

// Joins what belongs to two rows.
INLINE __m512i join_halves(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

INLINE __m512i load_column32(const uint8_t* b, int j) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(b + Q8_K_AT + 32 * j)));
}

INLINE __m512i dot_q6_k(const uint8_t* first, const uint8_t* second, const uint8_t* b) {
  const __m512i nibble = _mm512_set1_epi8(0x0f), two_bits = _mm512_set1_epi8(0x30);
  const __m512i pair = _mm512_setr_epi64(0, 0, 0x0001000100010001, 0x0001000100010001, 0x0010001000100010,
                                         0x0010001000100010, 0x0011001100110011, 0x0011001100110011);
  const __m128i low_scales = _mm_loadu_si128((const void*)(first + Q6_K_SCALES_AT));
  const __m128i high_scales = _mm_loadu_si128((const void*)(second + Q6_K_SCALES_AT));
  const __m512i scales = _mm512_cvtepi8_epi16(_mm256_set_m128i(high_scales, low_scales));
  const __m512i column_sums = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(b + Q8_K_SUMS_AT)));
  __m512i dot = _mm512_setzero_si512();
  UNROLL
  for (int half = 0; half < 2; half++) {
    const __m512i high = load_two_rows(first + Q6_K_HIGH_AT + 32 * half, second + Q6_K_HIGH_AT + 32 * half);
    UNROLL
    for (int j = 0; j < 4; j++) {
      const int at = 64 * half + 32 * (j % 2);
      const __m512i low = load_two_rows(first + at, second + at);
      const __m512i upper = j < 2 ? _mm512_slli_epi16(high, 4 - 2 * j) : _mm512_srli_epi16(high, 2 * j - 4);
      const __m512i a = masked_or(j < 2 ? low : _mm512_srli_epi16(low, 4), nibble, _mm512_and_si512(upper, two_bits));
      const __m512i index = _mm512_add_epi16(pair, _mm512_set1_epi16((short)(8 * half + 2 * j)));
      dot = _mm512_dpwssd_epi32(dot, _mm512_maddubs_epi16(a, load_column32(b, 4 * half + j)),
                                _mm512_permutexvar_epi16(index, scales));
    }
  }
  return _mm512_sub_epi32(dot, _mm512_slli_epi32(_mm512_madd_epi16(column_sums, scales), 5));
}

// Returns the eight scales of a row of Q5_K, a byte each.
static inline uint64_t scales_q5_k(const uint8_t* row) {
  uint32_t t[3];
  memcpy(t, row + 4, sizeof t);
  const uint32_t first = t[0] & 0x3f3f3f3f, last = (t[2] & 0x0f0f0f0f) | (t[0] >> 2 & 0x30303030);
  return first | (uint64_t)last << 32;
}

INLINE __m512i dot_q5_k(const uint8_t* first, const uint8_t* second, const uint8_t* b) {
  const __m512i nibble = _mm512_set1_epi8(0x0f), fifth = _mm512_set1_epi8(0x10);
  const __m512i row = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
  const __m256i bytes = _mm256_set_epi64x(0, (int64_t)scales_q5_k(second), 0, (int64_t)scales_q5_k(first));
  const __m512i scales = _mm512_cvtepu8_epi16(bytes);
  const __m512i high = load_two_rows(first + Q5_K_HIGH_AT, second + Q5_K_HIGH_AT);
  __m512i dot = _mm512_setzero_si512();
  UNROLL
  for (int i = 0; i < SUB_BLOCKS / 2; i++) {
    const __m512i both = load_two_rows(first + Q5_K_AT + 32 * i, second + Q5_K_AT + 32 * i);
    UNROLL
    for (int j = 2 * i; j < 2 * i + 2; j++) {
      const __m512i upper = j < 4 ? _mm512_slli_epi16(high, 4 - j) : _mm512_srli_epi16(high, j - 4);
      const __m512i a = masked_or(j % 2 ? _mm512_srli_epi16(both, 4) : both, nibble, _mm512_and_si512(upper, fifth));
      const __m512i scale = _mm512_permutexvar_epi16(_mm512_add_epi16(row, _mm512_set1_epi16((short)j)), scales);
      // Two values of five bits, times 127 each, stay far below 2^15.
      dot = _mm512_dpwssd_epi32(dot, _mm512_maddubs_epi16(a, load_column32(b, j)), scale);
    }
  }
  return dot;
}

// Returns the eight scales of a row of IQ4_XS.
INLINE __m256i scales_iq4_xs(const uint8_t* row) {
  const __m256i low = _mm256_set1_epi32(load_dword(row + 4)), high = _mm256_set1_epi32(load_dword(row) >> 12);
  const __m256i four = _mm256_srlv_epi32(low, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  const __m256i two = _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
  const __m256i six = _mm256_or_si256(_mm256_and_si256(four, _mm256_set1_epi32(0x0f)),
                                      _mm256_and_si256(two, _mm256_set1_epi32(0x30)));
  return _mm256_sub_epi32(six, _mm256_set1_epi32(32));
}

INLINE __m512i dot_iq4_xs(const uint8_t* first, const uint8_t* second, const uint8_t* b,
                          const struct column_terms* terms) {
  const __m512i row = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi32(8), 1);
  const __m512i shifts = _mm512_setr_epi64(0, 0, 0x0004000400040004, 0x0004000400040004, 0, 0, 0x0004000400040004,
                                           0x0004000400040004);
  const __m512i scales = join_halves(scales_iq4_xs(first), scales_iq4_xs(second));
  // The sum of each sub-block of the column, times minus the offset.
  const __m256i offsets = _mm256_loadu_si256((const void*)terms->compensation);
  __m512i dot = _mm512_mullo_epi32(scales, _mm512_broadcast_i64x4(offsets));
  UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) {
    const __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128((const void*)(first + IQ4_XS_AT + 16 * j)));
    const __m128i high = _mm_loadu_si128((const void*)(second + IQ4_XS_AT + 16 * j));
    const __m512i both = _mm512_srlv_epi16(_mm512_mask_broadcast_i32x4(low, 0xff00, high), shifts);
    const __m512i a = _mm512_shuffle_epi8(value_table(GGML_TYPE_IQ4_XS), _mm512_and_si512(both, _mm512_set1_epi8(0x0f)));
    const __m512i scale = _mm512_permutexvar_epi32(_mm512_add_epi32(row, _mm512_set1_epi32(j)), scales);
    const __m512i product = _mm512_dpbusd_epi32(_mm512_setzero_si512(), a, load_column32(b, j));
    dot = _mm512_add_epi32(dot, _mm512_mullo_epi32(product, scale));
  }
  return dot;
}

// Returns the mins of sixteen rows of Q5_K times the sums of the column, and the scales of the rows' floats.
INLINE __m512i dot_mins_q5_k(const struct panel* panel, size_t at, const uint8_t* b, __m512* d, __m512* dmin) {
  const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), upper = _mm512_set1_epi8(0x30);
  __m512i t[4];
  transpose16(panel->row, at, t);
  *d = low_f16(t[0]);
  *dmin = high_f16(t[0]);
  const __m512i first = _mm512_and_si512(t[2], six);
  const __m512i last = masked_or(_mm512_srli_epi32(t[3], 4), four, _mm512_and_si512(_mm512_srli_epi32(t[2], 2), upper));
  // Bytes 0 and 2 of a lane meet the sums of their sub-blocks, then bytes 1 and 3.
  const __m128i sums = _mm_hadd_epi16(_mm_loadu_si128((const void*)(b + Q8_K_SUMS_AT)),
                                      _mm_loadu_si128((const void*)(b + Q8_K_SUMS_AT + 16)));
  const __m512i pairs = _mm512_broadcast_i32x4(
      _mm_shuffle_epi8(sums, _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15)));
  const __m512i even = _mm512_set1_epi16(0xff);
  __m512i dot = _mm512_madd_epi16(_mm512_and_si512(first, even), _mm512_shuffle_epi32(pairs, 0x00));
  dot = _mm512_dpwssd_epi32(dot, _mm512_srli_epi16(first, 8), _mm512_shuffle_epi32(pairs, 0x55));
  dot = _mm512_dpwssd_epi32(dot, _mm512_and_si512(last, even), _mm512_shuffle_epi32(pairs, 0xaa));
  return _mm512_dpwssd_epi32(dot, _mm512_srli_epi16(last, 8), _mm512_shuffle_epi32(pairs, 0xff));
}

// Tells the types whose single columns are multiplied with pairs of rows instead of with a packed panel.
INLINE bool takes_pairs(const int type) {
  return type == GGML_TYPE_Q5_K || type == GGML_TYPE_Q6_K || type == GGML_TYPE_IQ4_XS;
}

// Multiplies a panel with one column. `dots` has room for eight registers for each super-block.
INLINE void decode_pairs(const int type, const struct panel* panel, const struct columns* x, __m512i* dots) {
  const size_t bytes = block_bytes(type);
  const int lines = 2 * (int)bytes / LINE + 1;
  for (int p = 0; p < DWORDS; p++) {
    const uint8_t *first = panel->row[2 * p], *second = panel->row[2 * p + 1];
    // A run of memory ahead of the second row, which follows the first.
    const uint8_t* next = second + PAIRS_AHEAD;
    for (size_t k = 0; k < x->blocks; k++) {
      const size_t at = k * bytes;
      if (panel->stream)
        prefetch_weights(panel->stream, lines);
      else
        for (int i = 0; i < lines; i++) _mm_prefetch((const void*)(next + 2 * at + i * LINE), _MM_HINT_T1);
      const uint8_t* b = x->b + k * Q8_K_BYTES;
      dots[DWORDS * k + p] = type == GGML_TYPE_Q6_K   ? dot_q6_k(first + at, second + at, b)
                             : type == GGML_TYPE_Q5_K ? dot_q5_k(first + at, second + at, b)
                                                      : dot_iq4_xs(first + at, second + at, b, x->terms + 2 * k);
    }
  }
  // From the order of sums_of_halves: even rows of the first eight, odd ones, and the same of the others.
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  __m512 sum = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    const size_t at = k * bytes;
    const uint8_t* b = x->b + k * Q8_K_BYTES;
    __m512 d, dmin = _mm512_setzero_ps();
    __m512i mins = _mm512_setzero_si512(), t[DWORDS];
    UNROLL
    for (int p = 0; p < DWORDS; p++) t[p] = dots[DWORDS * k + p];
    if (type == GGML_TYPE_Q5_K)
      mins = dot_mins_q5_k(panel, at, b, &d, &dmin);
    else
      d = gather_f16(panel, at + (type == GGML_TYPE_Q6_K ? Q6_K_D_AT : 0));
    const __m512 values = _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(order, sums_of_halves(t)));
    sum = add_tiled(type, d, dmin, values, mins, _mm512_set1_ps(load_float(b)), sum);
  }
  _mm512_mask_storeu_ps(x->c, panel->store_mask, sum);
}

INLINE void tiled_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                          struct packed_super_block* packed) {
  const int eight = K_QUANT_COLUMNS;
  if (n == 1 && takes_pairs(type)) {
    decode_pairs(type, panel, x, (__m512i*)packed);
    return;
  }
  if (few_columns(type, ORDER_TILED, panel, x, n)) return;
  size_t j = 0;
  pack_super_blocks(type, panel, x->blocks, packed);
  for (; j + eight <= n; j += eight) k_quant_tile(type, ORDER_TILED, eight, 0, panel, packed, x, j);
  for (; j + 4 <= n; j += 4) k_quant_tile(type, ORDER_TILED, 4, 0, panel, packed, x, j);
  for (; j + 2 <= n; j += 2) k_quant_tile(type, ORDER_TILED, 2, 0, panel, packed, x, j);
  if (j < n) k_quant_tile(type, ORDER_TILED, 1, 0, panel, packed, x, j);
}

// One column of Q6_K and two rows in the order of ggml's dot products. `stream` is prefetched on the way.
INLINE void decode_q6_k(const uint8_t* first, const uint8_t* second, const uint8_t* b, size_t blocks,
                        struct weight_stream* stream, float out[2]) {
  __m512 sum = _mm512_setzero_ps();
  for (size_t k = 0; k < blocks; k++, first += Q6_K_BYTES, second += Q6_K_BYTES, b += Q8_K_BYTES) {
    prefetch_weights(stream, 2 * Q6_K_BYTES / LINE + 1);
    const __m512i dot = dot_q6_k(first, second, b);
    uint16_t d[2];
    memcpy(d, first + Q6_K_D_AT, sizeof *d);
    memcpy(d + 1, second + Q6_K_D_AT, sizeof *d);
    const float db = load_float(b);
    const __m512 scale = _mm512_insertf32x8(_mm512_set1_ps(db * _cvtsh_ss(d[0])), _mm256_set1_ps(db * _cvtsh_ss(d[1])), 1);
    sum = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dot), sum);
  }
  out[0] = reduce_half(_mm512_castps512_ps256(sum));
  out[1] = reduce_half(_mm512_extractf32x8_ps(sum, 1));
}
