// Panels of matrices with super-blocks of 256 values: the k-quants, and IQ4_XS, which is made like one.
//
// The layouts are ggml's. Q2_K to Q6_K have eight sub-blocks of 32 values (sixteen of 16 for Q2_K, Q3_K and Q6_K) with
// a small integer scale each, and one or two 16-bit floats that scale the integers. IQ4_XS has eight sub-blocks whose
// nibbles are indices into a table of values.
#pragma once

#include "panel.h"

enum {
  SUB_BLOCKS = 8,  // sub-blocks of 32 values in a super-block
  Q2_K_AT = 16,    // after the scales and minima
  Q2_K_D_AT = 80,
  Q3_K_AT = 32,  // after the high bits
  Q3_K_SCALES_AT = 96,
  Q3_K_D_AT = 108,
  Q4_K_AT = 16,  // after d, dmin, and the scales and mins of six bits
  Q5_K_HIGH_AT = 16,
  Q5_K_AT = 48,
  Q6_K_HIGH_AT = 128,  // two high bits for each value
  Q6_K_SCALES_AT = 192,
  Q6_K_D_AT = 208,
  IQ4_XS_AT = 8,       // after d and the scales
  RAW_REGISTERS = 48,  // registers for the transposed bytes of a super-block, at most
};

// Returns how many sub-blocks of a super-block have a scale of their own.
INLINE int scale_count(int type) {
  return type == GGML_TYPE_Q6_K || type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q2_K ? 2 * SUB_BLOCKS : SUB_BLOCKS;
}

// Tells the types whose sub-blocks have minima, which are subtracted. The values of the other types have an offset.
INLINE bool has_minima(const int type) {
  return type == GGML_TYPE_Q2_K || type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K;
}

struct scales {
  __m512 d, dmin;
  __m512 scale[2 * SUB_BLOCKS];  // one for each sub-block
  __m512i min[SUB_BLOCKS];       // 16-bit factors for two neighboring sums of 16 values of the column
};

// Makes scales of the signed bytes of four registers, and factors for the column's sums of 16 values, which stand for
// an offset of 32.
INLINE void unpack_signed_scales(const __m512i bytes[4], struct scales* out) {
  const uint8_t no = 0x80;  // an index for which the shuffle gives a zero byte
  const __m512i lanes = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  UNROLL
  for (int i = 0; i < 16; i++) {
    const __m512i top = _mm512_slli_epi32(bytes[i / 4], 24 - i % 4 * 8);
    out->scale[i] = _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24));
  }
  UNROLL
  for (int i = 0; i < 8; i++) {
    const uint8_t b = (uint8_t)(i % 2 * 2);
    const __m512i pick = _mm512_or_si512(lanes, set_bytes(no, b, no, b + 1));
    out->min[i] = _mm512_srai_epi16(_mm512_shuffle_epi8(bytes[i / 2], pick), 3);
  }
}

INLINE void unpack_scales_q6_k(const struct panel* panel, size_t at, struct scales* out) {
  __m512i t[4];
  prefetch_next_panel(panel, at + Q6_K_SCALES_AT, 8);
  transpose16(panel->row, at + Q6_K_SCALES_AT, t);
  out->d = out->dmin = high_f16(gather_dwords(panel, at + Q6_K_D_AT - 2));
  unpack_signed_scales(t, out);
}

// Sixteen scales of six bits: four bits of each in the first two dwords, two bits of each in the third.
INLINE void unpack_scales_q3_k(const struct panel* panel, size_t at, struct scales* out) {
  const __m512i four = _mm512_set1_epi8(0x0f), upper = _mm512_set1_epi8(0x30), offset = _mm512_set1_epi8(32);
  __m512i t[4];
  transpose16(panel->row, at + Q3_K_SCALES_AT - 4, t);
  const __m512i low[4] = {t[1], t[2], _mm512_srli_epi32(t[1], 4), _mm512_srli_epi32(t[2], 4)};
  const __m512i high[4] = {_mm512_slli_epi32(t[3], 4), _mm512_slli_epi32(t[3], 2), t[3], _mm512_srli_epi32(t[3], 2)};
  __m512i bytes[4];
  UNROLL
  for (int i = 0; i < 4; i++)
    bytes[i] = _mm512_sub_epi8(masked_or(low[i], four, _mm512_and_si512(high[i], upper)), offset);
  out->d = out->dmin = high_f16(gather_dwords(panel, at + Q3_K_D_AT - 2));
  unpack_signed_scales(bytes, out);
}

// Eight scales of six bits: four bits of each in a dword, two bits of each in 16 bits.
INLINE void unpack_scales_iq4_xs(const struct panel* panel, size_t at, struct scales* out) {
  const __m512i first = gather_dwords(panel, at), low = gather_dwords(panel, at + 4);
  out->d = out->dmin = low_f16(first);
  UNROLL
  for (int i = 0; i < SUB_BLOCKS; i++) {
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(first, 12 + 2 * i), _mm512_set1_epi32(0x30));
    const __m512i six = masked_or(_mm512_srli_epi32(low, 4 * i), _mm512_set1_epi32(0x0f), high);
    out->scale[i] = _mm512_cvtepi32_ps(_mm512_sub_epi32(six, _mm512_set1_epi32(32)));
    out->min[i] = _mm512_setzero_si512();
  }
}

// Sixteen scales and minima in the nibbles of sixteen bytes.
INLINE void unpack_scales_q2_k(const struct panel* panel, size_t at, struct scales* out) {
  const uint8_t no = 0x80;
  const __m512i lanes = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  __m512i t[4];
  transpose16(panel->row, at, t);
  const __m512i both = gather_dwords(panel, at + Q2_K_D_AT);
  out->d = low_f16(both);
  out->dmin = high_f16(both);
  UNROLL
  for (int i = 0; i < 16; i++) {
    const __m512i scale = _mm512_srli_epi32(t[i / 4], i % 4 * 8);
    out->scale[i] = _mm512_cvtepi32_ps(_mm512_and_si512(scale, _mm512_set1_epi32(0x0f)));
  }
  UNROLL
  for (int i = 0; i < 8; i++) {
    const uint8_t b = (uint8_t)(i % 2 * 2);
    const __m512i pick = _mm512_or_si512(lanes, set_bytes(b, no, b + 1, no));
    const __m512i bytes = _mm512_shuffle_epi8(t[i / 2], pick);
    out->min[i] = _mm512_and_si512(_mm512_srli_epi32(bytes, 4), _mm512_set1_epi32(0x000f000f));
  }
}

INLINE void unpack_scales(const int type, const struct panel* panel, size_t k, struct scales* out) {
  const size_t at = k * block_bytes(type);
  const uint8_t no = 0x80;
  const __m512i lanes = _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
  __m512i t[4];
  switch (type) {
    case GGML_TYPE_Q2_K:
      unpack_scales_q2_k(panel, at, out);
      return;
    case GGML_TYPE_Q3_K:
      unpack_scales_q3_k(panel, at, out);
      return;
    case GGML_TYPE_Q6_K:
      unpack_scales_q6_k(panel, at, out);
      return;
    case GGML_TYPE_IQ4_XS:
      unpack_scales_iq4_xs(panel, at, out);
      return;
  }
  prefetch_next_panel(panel, at, 8);
  transpose16(panel->row, at, t);
  out->d = low_f16(t[0]);
  out->dmin = high_f16(t[0]);
  // Sub-blocks 0 to 3 have six bits in one byte each. Those of sub-blocks 4 to 7 are four bits in the last dword and
  // two in the upper bits of the other dwords.
  const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), upper = _mm512_set1_epi8(0x30);
  const __m512i scale[2] = {
      _mm512_and_si512(t[1], six),
      masked_or(t[3], four, _mm512_and_si512(_mm512_srli_epi32(t[1], 2), upper)),
  };
  const __m512i min[2] = {
      _mm512_and_si512(t[2], six),
      masked_or(_mm512_srli_epi32(t[3], 4), four, _mm512_and_si512(_mm512_srli_epi32(t[2], 2), upper)),
  };
  UNROLL
  for (int i = 0; i < 8; i++) {
    const uint8_t b = (uint8_t)(i % 4);
    const __m512i one = _mm512_or_si512(lanes, set_bytes(b, no, no, no)),
                  twice = _mm512_or_si512(lanes, set_bytes(b, no, b, no));
    out->scale[i] = _mm512_cvtepi32_ps(_mm512_shuffle_epi8(scale[i / 4], one));
    out->min[i] = _mm512_shuffle_epi8(min[i / 4], twice);
  }
}

// Transposes the bytes of super-block k of each row as they are stored: first the low bits of the values, then the high
// bits.
INLINE void transpose_super_block(const int type, const struct panel* panel, size_t k, __m512i raw[RAW_REGISTERS]) {
  const size_t at = k * block_bytes(type);
  const bool two_bits = type == GGML_TYPE_Q2_K || type == GGML_TYPE_Q3_K;
  const size_t low = type == GGML_TYPE_Q2_K     ? Q2_K_AT
                     : type == GGML_TYPE_Q3_K   ? Q3_K_AT
                     : type == GGML_TYPE_Q4_K   ? Q4_K_AT
                     : type == GGML_TYPE_Q5_K   ? Q5_K_AT
                     : type == GGML_TYPE_IQ4_XS ? IQ4_XS_AT
                                                : 0;
  for (size_t i = 0; i < (two_bits ? 2 : 4); i++)
    prefetch_and_transpose32(panel, at + low + 32 * i, two_bits ? 11 : 8, raw + DWORDS * i);
  if (type == GGML_TYPE_Q3_K) prefetch_and_transpose32(panel, at, 8, raw + 16);
  if (type == GGML_TYPE_Q5_K) prefetch_and_transpose32(panel, at + Q5_K_HIGH_AT, 8, raw + 32);
  if (type == GGML_TYPE_Q6_K)
    for (size_t i = 0; i < 2; i++)
      prefetch_and_transpose32(panel, at + Q6_K_HIGH_AT + 32 * i, 8, raw + 32 + DWORDS * i);
}

INLINE __m512i shift_left(__m512i x, int left) {
  return left < 0 ? _mm512_srli_epi32(x, (unsigned)-left) : left ? _mm512_slli_epi32(x, (unsigned)left) : x;
}

// Unpacks sub-block j, that is values 32j to 32j+31, from transposed bytes.
INLINE void unpack_sub_block(const int type, const __m512i raw[RAW_REGISTERS], const int j, __m512i out[DWORDS]) {
  const __m512i nibble = _mm512_set1_epi8(0x0f);
  UNROLL
  for (int q = 0; q < DWORDS; q++) {
    if (type == GGML_TYPE_Q6_K) {
      const int t = j % 4, half = j / 4;
      const __m512i low = shift_left(raw[16 * half + 8 * (t % 2) + q], t < 2 ? 0 : -4);
      const __m512i high = shift_left(raw[32 + 8 * half + q], 4 - 2 * t);
      out[q] = masked_or(low, nibble, _mm512_and_si512(high, _mm512_set1_epi8(0x30)));
    } else if (type == GGML_TYPE_Q2_K || type == GGML_TYPE_Q3_K) {
      const __m512i low = shift_left(raw[8 * (j / 4) + q], -2 * (j % 4)), two = _mm512_set1_epi8(3);
      const __m512i high = type == GGML_TYPE_Q3_K ? shift_left(raw[16 + q], 2 - j) : _mm512_setzero_si512();
      out[q] = masked_or(low, two, _mm512_and_si512(high, _mm512_set1_epi8(4)));
    } else if (type == GGML_TYPE_IQ4_XS) {
      const __m512i low = shift_left(raw[4 * j + q % 4], q < 4 ? 0 : -4);
      out[q] = _mm512_shuffle_epi8(value_table(type), _mm512_and_si512(low, nibble));
    } else {
      const __m512i low = shift_left(raw[8 * (j / 2) + q], j % 2 ? -4 : 0);
      if (type == GGML_TYPE_Q4_K) {
        out[q] = _mm512_and_si512(low, nibble);
      } else {
        const __m512i high = shift_left(raw[32 + q], 4 - j);
        out[q] = masked_or(low, nibble, _mm512_and_si512(high, _mm512_set1_epi8(0x10)));
      }
    }
  }
}
