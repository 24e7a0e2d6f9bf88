// Products of strips of A with columns of Q8_K, for K types: blocks of 256 values, parts of which have scales of their
// own. For these ggml has kernels whose sums run over blocks row by row, so that lane = row gives the same operations
// in the same order without more ado, and hence the same bits. What they differ in is when an integer sum becomes a
// float.
#pragma once

#include "matmul_q8_0.h"

enum {
  Q8_K_BYTES = 292,    // of a column's block
  Q8_K_AT = 4,         // after its scale
  Q8_K_SUMS_AT = 260,  // of each 16 values, 16 bits

  SUPER_GROUP = 8,    // columns at a time: at most
  REPACKED_ROWS = 8,  // ggml repacks matrices of a multiple of these
  REPACK_GROUP = 4,   // columns that ggml multiplies with repacked rows at a time; it treats those left over otherwise
  TILED_COLUMNS = 8,  // from which on ggml multiplies K types, if not repacked, in tiles
};

// Repacked rows have one sum of values and one of mins, to be subtracted at the end. Integers become floats after each
// 64 values, but in columns left over from groups of four at the end of a block. In tiles both are joined block by
// block.
enum order { REPACKED, TILED };

struct super {
  struct scales scales;
  __m512i a[SUPER][DWORDS];
};

struct sums {
  __m512 values, mins;
};

INLINE float first_float(const uint8_t* at) {
  float value;
  memcpy(&value, at, sizeof value);
  return value;
}

// What the values' offset of 32 contributes to a Q6_K part's dot product, to start from.
INLINE __m512i first_dot(const int type, const struct side* side, const int part) {
  if (type != GGML_TYPE_Q6_K) return _mm512_setzero_si512();
  return _mm512_set1_epi32(side[part / DWORDS].offset[part % DWORDS]);
}

INLINE __m512i min_sum(__m512i sum, const struct scales* scales, const uint8_t* b, const int j) {
  return _mm512_dpwssd_epi32(sum, scales->min[j], _mm512_set1_epi32(dword(b + Q8_K_SUMS_AT + 4 * j)));
}

// How many parts of 32 values, times their scales, add up to less than 2^24 at most: a float still has their sum
// exactly. (32 values of 15 times 127, times a scale of 63; of 31; of 32, times a scale of 128.)
INLINE int exact_parts(const int type) { return type == GGML_TYPE_Q4_K ? 4 : type == GGML_TYPE_Q5_K ? 2 : 1; }

// A part's dot product times its scale, added to `sum` or, if it is the first, not.
INLINE __m512 add_part(const int type, const __m512i a[DWORDS], const struct scales* scales, const uint8_t* b,
                       const struct side* side, const int j, const bool first, __m512 sum) {
  const int step = scale_count(type) / SUPER;
  UNROLL
  for (int h = 0; h < step; h++) {
    __m512i dot = first_dot(type, side, step * j + h);
    UNROLL
    for (int q = h * DWORDS / step; q < (h + 1) * DWORDS / step; q++)
      dot = _mm512_dpbusd_epi32(dot, a[q], _mm512_set1_epi32(dword(b + Q8_K_AT + 32 * j + 4 * q)));
    const __m512 f = _mm512_cvtepi32_ps(dot), scale = scales->scale[step * j + h];
    sum = first && h == 0 ? _mm512_mul_ps(f, scale) : _mm512_fmadd_ps(f, scale, sum);
  }
  return sum;
}

INLINE void end_of_block(const int type, const enum order order, const struct scales* scales, const uint8_t* b,
                         __m512 values, struct sums* sum) {
  const __m512 db = _mm512_set1_ps(first_float(b));
  __m512i mins = _mm512_setzero_si512();
  if (type != GGML_TYPE_Q6_K) UNROLL
  for (int j = 0; j < SUPER; j++) mins = min_sum(mins, scales, b, j);
  if (order == TILED) {
    values = _mm512_mul_ps(values, scales->d);
    if (type != GGML_TYPE_Q6_K) values = _mm512_fnmadd_ps(scales->dmin, _mm512_cvtepi32_ps(mins), values);
    sum->values = _mm512_fmadd_ps(values, db, sum->values);
  } else {
    sum->values = _mm512_fmadd_ps(values, _mm512_mul_ps(scales->d, db), sum->values);
    sum->mins = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(scales->dmin, db), sum->mins);
  }
}

INLINE void end_of_quarter(const struct scales* scales, const uint8_t* b, const int j, __m512 values,
                           struct sums* sum) {
  const __m512 db = _mm512_set1_ps(first_float(b));
  const __m512i mins = min_sum(min_sum(_mm512_setzero_si512(), scales, b, j - 1), scales, b, j);
  sum->values = _mm512_fmadd_ps(values, _mm512_mul_ps(scales->d, db), sum->values);
  sum->mins = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(scales->dmin, db), sum->mins);
}

// One block of n columns, of which `quarters` are in groups of four. Its values are in `values`, or still packed in
// `raw`.
INLINE void super_step(const int type, const enum order order, const int n, const int quarters,
                       const struct scales* scales, const __m512i (*values)[DWORDS], const __m512i* raw,
                       const struct columns* x, const uint8_t* b, const struct side* side,
                       struct sums sum[SUPER_GROUP]) {
  __m512 part[SUPER_GROUP], half[SUPER_GROUP];
  __m512i whole[SUPER_GROUP];
  UNROLL
  for (int j = 0; j < SUPER; j++) {
    __m512i a[DWORDS];
    if (raw) unpack_part(type, raw, j, a);
    UNROLL
    for (int i = 0; i < n; i++) {
      const int exact = i < quarters ? 2 : exact_parts(type);
      const uint8_t* bi = b + i * x->bytes;
      part[i] = add_part(type, raw ? a : values[j], scales, bi, side + 2 * i * x->blocks, j, j % exact == 0, part[i]);
      if (j % exact < exact - 1) continue;
      if (i < quarters) {
        end_of_quarter(scales, bi, j, part[i], &sum[i]);
      } else if (exact == SUPER / 2) {
        // The sum of two floats that are exact is rounded as the integer would be.
        half[i] = j < SUPER / 2 ? part[i] : _mm512_add_ps(half[i], part[i]);
      } else {
        const __m512i exactly = _mm512_cvtps_epi32(part[i]);
        whole[i] = j < exact ? exactly : _mm512_add_epi32(whole[i], exactly);
      }
    }
  }
  UNROLL
  for (int i = quarters; i < n; i++) {
    const __m512 sum_of_parts = exact_parts(type) == SUPER / 2 ? half[i] : _mm512_cvtepi32_ps(whole[i]);
    end_of_block(type, order, scales, b + i * x->bytes, sum_of_parts, &sum[i]);
  }
}

// n columns from j on. The strip's blocks are in `packed`; if that is NULL, they are turned here.
INLINE void super_tile(const int type, const enum order order, const int n, const int quarters, const struct strip* s,
                       const struct super* packed, const struct columns* x, size_t j) {
  struct sums sum[SUPER_GROUP];
  UNROLL
  for (int i = 0; i < n; i++) sum[i] = (struct sums){_mm512_setzero_ps(), _mm512_setzero_ps()};
  const uint8_t* b = x->b + j * x->bytes;
  const struct side* side = type == GGML_TYPE_Q6_K ? x->side + 2 * j * x->blocks : x->side;
  for (size_t k = 0; k < x->blocks; k++, b += Q8_K_BYTES, side += 2) {
    if (packed) {
      super_step(type, order, n, quarters, &packed[k].scales, packed[k].a, NULL, x, b, side, sum);
    } else {
      struct scales scales;
      __m512i raw[RAW];
      unpack_scales(type, s, k, &scales);
      turn_super(type, s, k, raw);
      super_step(type, order, n, quarters, &scales, NULL, raw, x, b, side, sum);
    }
  }
  UNROLL
  for (int i = 0; i < n; i++) {
    const __m512 c = order == TILED ? sum[i].values : _mm512_sub_ps(sum[i].values, sum[i].mins);
    _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, s->keep, c);
  }
}

INLINE void pack_supers(const int type, const struct strip* s, size_t blocks, struct super* out) {
  for (size_t k = 0; k < blocks; k++, out++) {
    __m512i raw[RAW];
    unpack_scales(type, s, k, &out->scales);
    turn_super(type, s, k, raw);
    UNROLL
    for (int j = 0; j < SUPER; j++) unpack_part(type, raw, j, out->a[j]);
  }
}

// A column's place decides which of ggml's kernels has to be followed: x must start at a whole group of the product's
// columns.
INLINE void repacked_product(const int type, const struct strip* s, const struct columns* x, size_t n,
                             struct super* packed) {
  const int eight = SUPER_GROUP, four = REPACK_GROUP;
  switch (n) {
    case 1: super_tile(type, REPACKED, 1, 0, s, NULL, x, 0); return;
    case 2: super_tile(type, REPACKED, 2, 0, s, NULL, x, 0); return;
    case 3: super_tile(type, REPACKED, 3, 0, s, NULL, x, 0); return;
    case 4: super_tile(type, REPACKED, 4, four, s, NULL, x, 0); return;
    case 5: super_tile(type, REPACKED, 5, four, s, NULL, x, 0); return;
    case 6: super_tile(type, REPACKED, 6, four, s, NULL, x, 0); return;
    case 7: super_tile(type, REPACKED, 7, four, s, NULL, x, 0); return;
    case 8: super_tile(type, REPACKED, eight, eight, s, NULL, x, 0); return;
  }
  size_t j = 0;
  pack_supers(type, s, x->blocks, packed);
  for (; j + eight <= n; j += eight) super_tile(type, REPACKED, eight, eight, s, packed, x, j);
  for (; j + four <= n; j += four) super_tile(type, REPACKED, four, four, s, packed, x, j);
  for (; j < n; j++) super_tile(type, REPACKED, 1, 0, s, packed, x, j);
}

// Each column as the only one.
INLINE void lone_product(const int type, const struct strip* s, const struct columns* x, size_t n,
                         struct super* packed) {
  if (n == 1) {
    super_tile(type, REPACKED, 1, 0, s, NULL, x, 0);
    return;
  }
  size_t j = 0;
  pack_supers(type, s, x->blocks, packed);
  for (; j + 2 <= n; j += 2) super_tile(type, REPACKED, 2, 0, s, packed, x, j);
  if (j < n) super_tile(type, REPACKED, 1, 0, s, packed, x, j);
}

INLINE void tiled_product(const int type, const struct strip* s, const struct columns* x, size_t n,
                          struct super* packed) {
  if (n == SUPER_GROUP) {
    super_tile(type, TILED, SUPER_GROUP, 0, s, NULL, x, 0);
    return;
  }
  size_t j = 0;
  pack_supers(type, s, x->blocks, packed);
  for (; j + SUPER_GROUP <= n; j += SUPER_GROUP) super_tile(type, TILED, SUPER_GROUP, 0, s, packed, x, j);
  for (; j + 2 <= n; j += 2) super_tile(type, TILED, 2, 0, s, packed, x, j);
  if (j < n) super_tile(type, TILED, 1, 0, s, packed, x, j);
}

// Few columns of what is not repacked: eight lanes as in matmul_q8_0.h, each with an exact integer for a block. Mins of Q5_K
// have a sum of their own; Q6_K's offset of 32 is taken from the lanes, from each that of two parts.
struct lane_super {
  __m512 d, dmin;
  __m512i a[SUPER][DWORDS];
  __m512i scale[2 * SUPER];  // factors of 16 bits, each twice
  __m512i min[SUPER];
};

INLINE void unpack_lane_super(const int type, const struct strip* s, size_t k, struct lane_super* out) {
  struct scales scales;
  __m512i raw[RAW];
  unpack_scales(type, s, k, &scales);
  turn_super(type, s, k, raw);
  UNROLL
  for (int j = 0; j < SUPER; j++) unpack_part(type, raw, j, out->a[j]);
  out->d = scales.d;
  out->dmin = scales.dmin;
  UNROLL
  for (int i = 0; i < scale_count(type); i++) {
    const __m512i scale = _mm512_cvtps_epi32(scales.scale[i]);
    out->scale[i] = masked_or(scale, _mm512_set1_epi32(0xffff), _mm512_slli_epi32(scale, 16));
  }
  UNROLL
  for (int i = 0; i < SUPER; i++)
    out->min[i] = type == GGML_TYPE_Q6_K ? _mm512_sub_epi16(_mm512_setzero_si512(), scales.min[i]) : scales.min[i];
}

INLINE void lane_super_step(const int type, const struct lane_super* block, const uint8_t* b, __m512 sum[DWORDS + 1]) {
  const int step = scale_count(type) / SUPER;
  const __m512 db = _mm512_set1_ps(first_float(b)), d = _mm512_mul_ps(block->d, db);
  __m512i lane[DWORDS], mins = _mm512_setzero_si512();
  UNROLL
  for (int q = 0; q < DWORDS; q++) {
    const __m512i sums = _mm512_set1_epi32(dword(b + Q8_K_SUMS_AT + 4 * q));
    lane[q] = _mm512_setzero_si512();
    if (type == GGML_TYPE_Q6_K)
      lane[q] = _mm512_dpwssd_epi32(lane[q], block->min[q], sums);
    else
      mins = _mm512_dpwssd_epi32(mins, block->min[q], sums);
  }
  UNROLL
  for (int j = 0; j < SUPER; j++) UNROLL
  for (int q = 0; q < DWORDS; q++) {
    // Two values of 6 bits, times 127 each, are far from 2^15: no saturation.
    const __m512i twos = _mm512_maddubs_epi16(block->a[j][q], _mm512_set1_epi32(dword(b + Q8_K_AT + 32 * j + 4 * q)));
    lane[q] = _mm512_dpwssd_epi32(lane[q], twos, block->scale[step * j + q * step / DWORDS]);
  }
  UNROLL
  for (int q = 0; q < DWORDS; q++) sum[q] = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(lane[q]), sum[q]);
  if (type != GGML_TYPE_Q6_K)
    sum[DWORDS] = _mm512_fnmadd_ps(_mm512_mul_ps(block->dmin, db), _mm512_cvtepi32_ps(mins), sum[DWORDS]);
}

// n <= TILED_COLUMNS.
INLINE void lane_super_product(const int type, const struct strip* s, const struct columns* x, size_t n) {
  __m512 sum[TILED_COLUMNS][DWORDS + 1];
  for (size_t i = 0; i < n; i++)
    for (int q = 0; q <= DWORDS; q++) sum[i][q] = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    struct lane_super block;
    unpack_lane_super(type, s, k, &block);
    for (size_t i = 0; i < n; i++) lane_super_step(type, &block, x->b + i * x->bytes + k * Q8_K_BYTES, sum[i]);
  }
  for (size_t i = 0; i < n; i++) {
    const __m512 c = type == GGML_TYPE_Q6_K ? total(sum[i]) : _mm512_add_ps(total(sum[i]), sum[i][DWORDS]);
    _mm512_mask_storeu_ps(x->c + i * x->ldc, s->keep, c);
  }
}
