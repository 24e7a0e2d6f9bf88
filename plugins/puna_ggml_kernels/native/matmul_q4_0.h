// Products of panels with columns of Q8_0 or Q8_1 that have one sum for each row.
//
// On x86 ggml repacks Q4_0, IQ4_NL and MXFP4 into interleaved rows and multiplies those with kernels that keep one sum for each row.
// Each block's integer dot product over all 32 values is exact; it becomes a float at the end of the block, and a fused
// multiplication by the product of both scales adds it to the sum. With lane = row the order of additions is the same,
// so the bits are too, and the matrix need not be repacked: llama.cpp is asked not to do so (repacking.py).
//
// Q8_0, Q5_0, Q4_1 and Q5_1 have eight sums in ggml (matmul_q8_0.h), hence eight conversions and eight fused
// multiplications for each block. Unless ggml's bits are asked for (puna_exact), they have one sum here too. Its
// deviation from exact arithmetic is no larger, and it is the same for any number of columns. A minimum times the sum
// of the column's values is added to the same sum behind each block.
#pragma once

#include "matmul_q8_0.h"

enum { Q4_0_COLUMNS = 8 };  // columns at a time, at most

// Returns the sums of eight integers each of sixteen rows, in the order of the rows. Registers hold two rows each, those of
// load_rows32.
INLINE __m512i sums_of_halves(__m512i t[8]) {
  UNROLL
  for (int i = 0; i < 8; i += 4) {
    const __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(t[i], t[i + 1]), _mm512_unpackhi_epi32(t[i], t[i + 1]));
    const __m512i high =
        _mm512_add_epi32(_mm512_unpacklo_epi32(t[i + 2], t[i + 3]), _mm512_unpackhi_epi32(t[i + 2], t[i + 3]));
    t[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  }
  return _mm512_add_epi32(_mm512_shuffle_i32x4(t[0], t[4], 0x88), _mm512_shuffle_i32x4(t[0], t[4], 0xdd));
}

// The decode path: one column of Q8_0. Rows are not packed; the eight integers of each are added up pairwise instead.
INLINE void decode_one_sum(const struct panel* panel, const struct columns* x) {
  __m512 sum = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    const size_t at = k * Q8_0_BYTES;
    prefetch_next_panel(panel, at, Q8_0_BYTES / 4 + 1);
    const __m512i b = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void*)(x->b + at + Q8_0_AT)));
    __m512i t[8];
    load_rows32(panel->row, at + Q8_0_AT, t);
    UNROLL
    for (int i = 0; i < 8; i++)
      t[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_xor_si512(t[i], _mm512_set1_epi8((char)0x80)), b);
    const __m512i dot = _mm512_add_epi32(sums_of_halves(t), _mm512_set1_epi32(x->terms[k].compensation[0]));
    const __m512 d = _mm512_mul_ps(low_f16(gather_dwords(panel, at)), _mm512_set1_ps(x->terms[k].d));
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), d, sum);
  }
  _mm512_mask_storeu_ps(x->c, panel->store_mask, sum);
}

// The scales of sixteen rows as 16-bit floats. Four at a time are joined by scalar instructions, which have units of their own.
INLINE __m512 gather_f16(const struct panel* panel, size_t at) {
  uint64_t four[4];
  UNROLL
  for (int i = 0; i < 4; i++) {
    uint16_t one[4];
    UNROLL
    for (int r = 0; r < 4; r++) memcpy(&one[r], panel->row[4 * i + r] + at, sizeof one[r]);
    four[i] = one[0] | (uint64_t)one[1] << 16 | (uint64_t)one[2] << 32 | (uint64_t)one[3] << 48;
  }
  return _mm512_cvtph_ps(_mm256_set_epi64x((int64_t)four[3], (int64_t)four[2], (int64_t)four[1], (int64_t)four[0]));
}

// The decode path: one column of a type that has one sum in ggml too. A register holds a block of four rows, which are not packed.
INLINE void decode_nibbles(const int type, const struct panel* panel, const struct columns* x) {
  const __m512i nibble = _mm512_set1_epi8(0x0f);
  __m512 sum = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    const size_t at = k * block_bytes(type);
    prefetch_next_panel(panel, at, Q4_0_BYTES / 4 + 1);
    const uint8_t* b = x->b + k * Q8_0_BYTES + Q8_0_AT;
    const __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128((const void*)b));
    const __m512i high = _mm512_broadcast_i32x4(_mm_loadu_si128((const void*)(b + 16)));
    __m512i t[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
      const __m512i both = load_four_rows(panel->row, at + nibbles_at(type), i);
      __m512i first = _mm512_and_si512(both, nibble), second = _mm512_and_si512(_mm512_srli_epi32(both, 4), nibble);
      if (type != GGML_TYPE_Q4_0) {
        first = _mm512_shuffle_epi8(value_table(type), first);
        second = _mm512_shuffle_epi8(value_table(type), second);
      }
      t[i] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), first, low), second, high);
    }
    const __m512i even = _mm512_add_epi32(_mm512_unpacklo_epi32(t[0], t[1]), _mm512_unpackhi_epi32(t[0], t[1]));
    const __m512i odd = _mm512_add_epi32(_mm512_unpacklo_epi32(t[2], t[3]), _mm512_unpackhi_epi32(t[2], t[3]));
    const __m512i dot = _mm512_add_epi32(_mm512_add_epi32(_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd)),
                                         _mm512_set1_epi32(x->terms[k].compensation[0]));
    const __m512 scale = type == GGML_TYPE_MXFP4
                             ? half_power_of_two(_mm512_and_si512(gather_dwords(panel, at), _mm512_set1_epi32(0xff)))
                             : gather_f16(panel, at);
    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, _mm512_set1_ps(x->terms[k].d)), sum);
  }
  _mm512_mask_storeu_ps(x->c, panel->store_mask, sum);
}

INLINE void prefetch_and_pack_block(const int type, const struct panel* panel, size_t k, __m512i* out) {
  const size_t bytes = block_bytes(type);
  // unpack_block does it for the others.
  if (!has_one_sum(type)) prefetch_next_panel(panel, k * bytes, (int)bytes / 4 + 1);
  pack_block(type, panel, k, out);
}

INLINE void q4_0_tile(const int type, const int n, const struct panel* panel, const __m512i* packed,
                      const struct columns* x, size_t j) {
  __m512 sum[Q4_0_COLUMNS];
  UNROLL
  for (int i = 0; i < n; i++) sum[i] = _mm512_setzero_ps();
  const uint8_t* b = x->b + j * x->bytes + column_values_at(type);
  const struct column_terms* terms = x->terms + j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, b += column_bytes(type), terms++) {
    __m512i a[PACKED_WITH_MINIMUM];
    if (packed) UNROLL
    for (int q = 0; q < packed_registers(type); q++) a[q] = packed[k * (size_t)packed_registers(type) + q];
    else prefetch_and_pack_block(type, panel, k, a);
    UNROLL
    for (int i = 0; i < n; i++) {
      const struct column_terms* one = terms + i * x->blocks;
      __m512i dot = has_minimum(type) ? _mm512_setzero_si512() : _mm512_set1_epi32(one->compensation[0]);
      UNROLL
      for (int q = 0; q < DWORDS; q++)
        dot = _mm512_dpbusd_epi32(dot, a[q], _mm512_set1_epi32(load_dword(b + i * x->bytes + 4 * q)));
      const __m512 d = _mm512_mul_ps(_mm512_castsi512_ps(a[DWORDS]), _mm512_set1_ps(one->d));
      sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), d, sum[i]);
      if (has_minimum(type))
        sum[i] = _mm512_fmadd_ps(_mm512_castsi512_ps(a[DWORDS + 1]), _mm512_set1_ps(one->sum), sum[i]);
    }
  }
  UNROLL
  for (int i = 0; i < n; i++) _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, panel->store_mask, sum[i]);
}

INLINE void q4_0_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                         __m512i* packed) {
  switch (n) {
    case 1:
      if (type == GGML_TYPE_Q8_0)
        decode_one_sum(panel, x);
      else if (has_one_sum(type))
        decode_nibbles(type, panel, x);
      else
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
  for (size_t k = 0; k < x->blocks; k++) prefetch_and_pack_block(type, panel, k, packed + k * (size_t)packed_registers(type));
  size_t j = 0;
  for (; j + Q4_0_COLUMNS <= n; j += Q4_0_COLUMNS) q4_0_tile(type, Q4_0_COLUMNS, panel, packed, x, j);
  for (; j + 4 <= n; j += 4) q4_0_tile(type, 4, panel, packed, x, j);
  for (; j + 2 <= n; j += 2) q4_0_tile(type, 2, panel, packed, x, j);
  if (j < n) q4_0_tile(type, 1, panel, packed, x, j);
}
