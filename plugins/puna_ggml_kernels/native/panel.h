// Panels: sixteen rows of a quantized matrix, packed so that lane r of a register belongs to row r.
//
// ggml multiplies one row with one column and ends with a horizontal sum over the register. Here a register holds the
// same four values (a dword) of all sixteen rows. Multiplied with a broadcast dword of the column, it adds to sixteen
// dot products at once, one in each lane, and no horizontal sum is left. Packing is a transposition of dwords; it is
// done once for a panel and serves all columns.
//
// The instruction for integer dot products, vpdpbusd, takes one factor as unsigned bytes. So packed values have an
// offset added that makes them unsigned (value_offset), and each dot product starts at minus that offset times the sum
// of the column's values (compensation in matmul_q8_0.h). All of this is integer arithmetic and therefore exact: it
// changes no bit of a result.
//
// The layouts of the blocks are ggml's. Q8_0, Q5_0 and Q4_0 have blocks of 32 values with one 16-bit scale. Q4_1 and
// Q5_1 have unsigned values and also a 16-bit minimum, which is added to each value after the scale is applied. In
// IQ4_NL and MXFP4 each nibble is an index into a table of values; the scale of MXFP4 is a power of two. Types with
// super-blocks of 256 values are in panel_k_quants.h.
#pragma once

#include <stdint.h>
#include <string.h>

#include "avx512.h"
#include "ggml_abi.h"
#include "weight_stream.h"

// Before a loop over an array of registers. Without it the compiler keeps the array in memory.
#define UNROLL _Pragma("GCC unroll 16")

enum {
  PANEL_ROWS = 16,  // rows of A in a panel, one for each lane
  DWORDS = 8,       // registers for 32 packed values of each row

  Q8_0_BYTES = 34,  // bytes of a block
  Q8_0_AT = 2,      // offset of the values in a block
  Q4_0_BYTES = 18,
  Q4_0_AT = 2,
  Q4_1_BYTES = 20,
  Q4_1_AT = 4,  // after the scale and the minimum
  Q5_0_BYTES = 22,
  Q5_0_HIGH_AT = 2,  // offset of the values' fifth bits
  Q5_0_AT = 6,
  Q5_1_BYTES = 24,
  Q5_1_HIGH_AT = 4,
  Q5_1_AT = 8,

  IQ4_NL_BYTES = 18,
  IQ4_NL_AT = 2,
  MXFP4_BYTES = 17,
  MXFP4_AT = 1,  // after the exponent
  Q2_K_BYTES = 84,
  Q3_K_BYTES = 110,
  Q4_K_BYTES = 144,
  Q5_K_BYTES = 176,
  Q6_K_BYTES = 210,
  IQ4_XS_BYTES = 136,
};

struct panel {
  const uint8_t* row[PANEL_ROWS];  // past the end of A the last row is repeated, and not stored
  __mmask16 store_mask;            // the lanes that are rows of A
  struct weight_stream* stream;    // what to prefetch; NULL: the next panel
};

INLINE int32_t load_dword(const uint8_t* at) {
  int32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

INLINE __m512i set_bytes(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return _mm512_set1_epi32((int32_t)((uint32_t)a | (uint32_t)b << 8 | (uint32_t)c << 16 | (uint32_t)d << 24));
}

// Rows are put into halves and quarters by masked broadcasts: unlike insertions they need no shuffle, and shuffles are
// what packing waits for.
INLINE __m512i load_two_rows(const uint8_t* low, const uint8_t* high) {
  const __m512i half = _mm512_castsi256_si512(_mm256_loadu_si256((const void*)low));
  return _mm512_mask_broadcast_i64x4(half, 0xf0, _mm256_loadu_si256((const void*)high));
}

INLINE __m512i load_four_rows(const uint8_t* const row[PANEL_ROWS], size_t at, int i) {
  __m512i t = _mm512_castsi128_si512(_mm_loadu_si128((const void*)(row[i] + at)));
  t = _mm512_mask_broadcast_i32x4(t, 0x00f0, _mm_loadu_si128((const void*)(row[i + 4] + at)));
  t = _mm512_mask_broadcast_i32x4(t, 0x0f00, _mm_loadu_si128((const void*)(row[i + 8] + at)));
  return _mm512_mask_broadcast_i32x4(t, 0xf000, _mm_loadu_si128((const void*)(row[i + 12] + at)));
}

// Prefetches the same block of the next panel, or as many lines of the stream. The hardware follows fewer streams than sixteen rows side by side, so
// that a product with few columns would wait for memory. Prefetching past the end of A does no harm.
INLINE void prefetch_next_panel(const struct panel* panel, size_t at, int lines) {
  if (panel->stream) {
    prefetch_weights(panel->stream, lines);
    return;
  }
  const uint8_t* const* row = panel->row;
  const size_t bytes = (size_t)(row[1] - row[0]) * PANEL_ROWS;
  UNROLL
  for (int i = 0; i < PANEL_ROWS; i++) _mm_prefetch((const void*)(row[i] + bytes + at), _MM_HINT_T1);
}

// Prefetches the next panel as one run of memory, in even steps while this panel is multiplied with several columns.
// Prefetching all of it while this panel is packed would exceed the number of outstanding loads, and leave memory idle
// for the rest of the time.
struct prefetcher {
  const uint8_t *next, *due, *end;  // the next line, the end of this step, the end of the panel
  size_t step;                      // bytes of a step
};

INLINE struct prefetcher prefetch_panel_after(const uint8_t* const row[PANEL_ROWS], size_t steps) {
  const size_t bytes = (size_t)(row[1] - row[0]) * PANEL_ROWS;
  const uint8_t* next = row[0] + bytes;
  return (struct prefetcher){next, next, next + bytes, bytes / steps + 1};
}

INLINE void prefetch_step(struct prefetcher* c) {
  c->due = c->end - c->due < (ptrdiff_t)c->step ? c->end : c->due + c->step;
  for (; c->next < c->due; c->next += LINE) _mm_prefetch((const void*)c->next, _MM_HINT_T1);
}

// Loads 32 bytes of each row in the order that transpose32 starts from: rows 0 to 7 are in the first four registers.
INLINE void load_rows32(const uint8_t* const row[PANEL_ROWS], size_t at, __m512i out[8]) {
  UNROLL
  for (int i = 0; i < 4; i++) {
    out[i] = load_two_rows(row[i] + at, row[i + 4] + at);
    out[4 + i] = load_two_rows(row[8 + i] + at, row[12 + i] + at);
  }
}

// Transposes the dwords of four registers within each 128-bit quarter.
INLINE void transpose_quarters(__m512i t[4]) {
  const __m512i low01 = _mm512_unpacklo_epi32(t[0], t[1]);
  const __m512i high01 = _mm512_unpackhi_epi32(t[0], t[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(t[2], t[3]);
  const __m512i high23 = _mm512_unpackhi_epi32(t[2], t[3]);
  t[0] = _mm512_unpacklo_epi64(low01, low23);
  t[1] = _mm512_unpackhi_epi64(low01, low23);
  t[2] = _mm512_unpacklo_epi64(high01, high23);
  t[3] = _mm512_unpackhi_epi64(high01, high23);
}

// Makes register q hold bytes 4q to 4q+3 of each row's 32 bytes at `at`.
INLINE void transpose32(const uint8_t* const row[PANEL_ROWS], size_t at, __m512i out[8]) {
  __m512i t[8];
  load_rows32(row, at, t);
  transpose_quarters(t);
  transpose_quarters(t + 4);
  UNROLL
  for (int q = 0; q < 4; q++) {
    out[q] = _mm512_shuffle_i32x4(t[q], t[4 + q], 0x88);
    out[q + 4] = _mm512_shuffle_i32x4(t[q], t[4 + q], 0xdd);
  }
}

INLINE void prefetch_and_transpose32(const struct panel* panel, size_t at, int lines, __m512i out[8]) {
  prefetch_next_panel(panel, at, lines);
  transpose32(panel->row, at, out);
}

// Makes register q hold bytes 4q to 4q+3 of each row's 16 bytes at `at`.
INLINE void transpose16(const uint8_t* const row[PANEL_ROWS], size_t at, __m512i out[4]) {
  UNROLL
  for (int i = 0; i < 4; i++) out[i] = load_four_rows(row, at, i);
  transpose_quarters(out);
}

// Returns the dword at `at` of each row. Sixteen loads and fifteen shuffles: the instruction that gathers takes as many
// loads, and on Zen 4 about 40 cycles.
INLINE __m512i gather_dwords(const struct panel* panel, size_t at) {
  __m512i fours[4];
  UNROLL
  for (int i = 0; i < 4; i++) {
    const uint8_t* const* row = panel->row + 4 * i;
    __m128i one[4];
    UNROLL
    for (int r = 0; r < 4; r++) one[r] = _mm_cvtsi32_si128(load_dword(row[r] + at));
    const __m128i low = _mm_unpacklo_epi32(one[0], one[1]), high = _mm_unpacklo_epi32(one[2], one[3]);
    fours[i] = _mm512_castsi128_si512(_mm_unpacklo_epi64(low, high));
  }
  const __m512i low = _mm512_inserti32x4(fours[0], _mm512_castsi512_si128(fours[1]), 1);
  const __m512i high = _mm512_inserti32x4(fours[2], _mm512_castsi512_si128(fours[3]), 1);
  return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
}

// Converts the 16-bit floats in the low or high halves of the lanes.
INLINE __m512 low_f16(__m512i x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)); }
INLINE __m512 high_f16(__m512i x) { return low_f16(_mm512_srli_epi32(x, 16)); }

// Returns (x & mask) | y.
INLINE __m512i masked_or(__m512i x, __m512i mask, __m512i y) { return _mm512_ternarylogic_epi32(x, mask, y, 0xea); }

// Returns the offset that makes the values of a type unsigned.
static inline int32_t value_offset(int type) {
  switch (type) {
    case GGML_TYPE_Q8_0:
      return 128;
    case GGML_TYPE_Q5_0:
      return 16;
    case GGML_TYPE_Q6_K:
      return 32;
    case GGML_TYPE_Q3_K:
      return 4;
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS:
      return 128;
    case GGML_TYPE_MXFP4:
      return 12;
    default:
      return 8;
  }
}
static inline size_t block_bytes(int type) {
  switch (type) {
    case GGML_TYPE_Q8_0:
      return Q8_0_BYTES;
    case GGML_TYPE_Q4_0:
      return Q4_0_BYTES;
    case GGML_TYPE_Q4_1:
      return Q4_1_BYTES;
    case GGML_TYPE_Q5_0:
      return Q5_0_BYTES;
    case GGML_TYPE_Q5_1:
      return Q5_1_BYTES;
    case GGML_TYPE_IQ4_NL:
      return IQ4_NL_BYTES;
    case GGML_TYPE_MXFP4:
      return MXFP4_BYTES;
    case GGML_TYPE_Q2_K:
      return Q2_K_BYTES;
    case GGML_TYPE_Q3_K:
      return Q3_K_BYTES;
    case GGML_TYPE_Q4_K:
      return Q4_K_BYTES;
    case GGML_TYPE_Q5_K:
      return Q5_K_BYTES;
    case GGML_TYPE_Q6_K:
      return Q6_K_BYTES;
    case GGML_TYPE_IQ4_XS:
      return IQ4_XS_BYTES;
    default:
      return 0;
  }
}

// Spreads each lane's 32 fifth bits into bytes of 0 or 16, for values 4q to 4q+3.
INLINE __m512i fifth_bits(__m512i bits, int q) {
  // Each of the four bits, in the upper half of a byte, goes into a byte of its own. There min() turns any set bit into
  // 16.
  const __m512i upper = q % 2 ? bits : _mm512_slli_epi32(bits, 4);
  const uint8_t b = (uint8_t)(q / 2);
  const __m512i lanes = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  const __m512i spread = _mm512_shuffle_epi8(upper, _mm512_add_epi8(lanes, _mm512_set1_epi8((char)b)));
  return _mm512_min_epu8(_mm512_and_si512(spread, set_bytes(0x10, 0x20, 0x40, 0x80)), _mm512_set1_epi8(0x10));
}

// Tells the types of 32 values whose blocks have a minimum beside the scale.
INLINE bool has_minimum(const int type) { return type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1; }

// Tells the types of which ggml adds all products of a block to one sum: see matmul_q4_0.h.
INLINE bool has_one_sum(const int type) {
  return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_MXFP4;
}

// Returns the offset of the nibbles in a block of 32 values.
INLINE size_t nibbles_at(const int type) {
  switch (type) {
    case GGML_TYPE_Q4_1:
      return Q4_1_AT;
    case GGML_TYPE_Q5_0:
      return Q5_0_AT;
    case GGML_TYPE_Q5_1:
      return Q5_1_AT;
    case GGML_TYPE_IQ4_NL:
      return IQ4_NL_AT;
    case GGML_TYPE_MXFP4:
      return MXFP4_AT;
    default:
      return Q4_0_AT;
  }
}

// Returns the sixteen values that a nibble of IQ4_NL, IQ4_XS or MXFP4 stands for, plus the type's offset, in each
// quarter. Those of MXFP4 are twice the floats of four bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6, and their negatives.
INLINE __m512i value_table(const int type) {
  const __m128i table = type == GGML_TYPE_MXFP4
                            ? _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
                            : _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  return _mm512_broadcast_i32x4(_mm_add_epi8(table, _mm_set1_epi8((char)value_offset(type))));
}

// Returns 2^(x - 128) for exponents x of eight bits, the smallest two as subnormal floats.
INLINE __m512 half_power_of_two(__m512i x) {
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(x, _mm512_set1_epi32(1)), 23);
  const __mmask16 small = _mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(1 << 21), x));
}

// Packs block k of each row: values into `out`, and minima, if the type has them, into `minimum`. Returns the scales.
INLINE __m512 unpack_block(const int type, const struct panel* panel, size_t k, __m512i out[DWORDS], __m512* minimum) {
  const size_t at = k * block_bytes(type);
  const __m512i nibble = _mm512_set1_epi8(0x0f);
  __m512i t[4];
  if (type == GGML_TYPE_Q8_0) {
    transpose32(panel->row, at + Q8_0_AT, out);
    UNROLL
    for (int q = 0; q < 8; q++) out[q] = _mm512_xor_si512(out[q], _mm512_set1_epi8((char)0x80));
    return low_f16(gather_dwords(panel, at));
  }
  if (has_one_sum(type)) prefetch_next_panel(panel, at, Q4_0_BYTES / 4 + 1);
  transpose16(panel->row, at + nibbles_at(type), t);
  if (type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1) {
    const __m512i bits = gather_dwords(panel, at + (type == GGML_TYPE_Q5_0 ? Q5_0_HIGH_AT : Q5_1_HIGH_AT));
    UNROLL
    for (int q = 0; q < 4; q++) {
      out[q] = masked_or(t[q], nibble, fifth_bits(bits, q));
      out[4 + q] = masked_or(_mm512_srli_epi32(t[q], 4), nibble, fifth_bits(bits, 4 + q));
    }
  } else {
    UNROLL
    for (int q = 0; q < 4; q++) {
      out[q] = _mm512_and_si512(t[q], nibble);
      out[4 + q] = _mm512_and_si512(_mm512_srli_epi32(t[q], 4), nibble);
    }
  }
  if (type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_MXFP4) UNROLL
  for (int q = 0; q < DWORDS; q++) out[q] = _mm512_shuffle_epi8(value_table(type), out[q]);
  const __m512i scales = gather_dwords(panel, at);
  if (type == GGML_TYPE_MXFP4) return half_power_of_two(_mm512_and_si512(scales, _mm512_set1_epi32(0xff)));
  if (has_minimum(type)) *minimum = high_f16(scales);
  return low_f16(scales);
}
