// Products of panels with columns of Q8_K, for the k-quants Q2_K to Q6_K and for IQ4_XS.
//
// A super-block has 256 values in sub-blocks, each with an integer scale, and for Q2_K, Q4_K and Q5_K with a minimum
// (min) that is subtracted from all its values. Q8_K stores the sums of each 16 values of a column, by which the mins
// are multiplied. An element is the sum over super-blocks of d * db * (scaled integer dot product) - dmin * db * (mins
// times sums).
//
// Inside a super-block everything is exact in integers, up to the point where ggml converts to a float. ggml has three
// kernels that differ in that point and in the order of the additions after it. With `exact` each is followed where ggml
// uses it; by default all products have the order of tiles:
//
// - repacked rows (Q2_K and Q4_K): one sum of values and one of mins run over super-blocks, and are subtracted at the
//   end. In groups of four columns the integers become floats after each 64 values (128 for Q2_K), in the columns left
//   over after each super-block;
// - tiles (the other types with TILED_COLUMNS or more columns): values and mins are joined in each super-block;
// - dot products (the other types with fewer columns): eight sums as in matmul_q8_0.h, one for each dword of 32 values.
//
// The first two add up row by row, which lane = row does anyway (k_quant_tile). The third has vec_dot_product.
#pragma once

#include "matmul_q8_0.h"
#include "panel_k_quants.h"

enum {
  Q8_K_BYTES = 292,    // bytes of a column's block
  Q8_K_AT = 4,         // after the scale, a 32-bit float
  Q8_K_SUMS_AT = 260,  // sums of each 16 values, as 16-bit integers

  K_QUANT_COLUMNS = 8,   // columns at a time, at most
  REPACKED_ROWS = 8,     // ggml repacks matrices whose number of rows is a multiple
  REPACKED_COLUMNS = 4,  // columns that ggml multiplies with repacked rows at a time
  TILED_COLUMNS = 8,     // columns from which ggml multiplies the other types in tiles
};

// Which of ggml's kernels k_quant_tile follows.
enum order { ORDER_REPACKED, ORDER_TILED };

struct packed_super_block {
  struct scales scales;
  __m512i a[SUB_BLOCKS][DWORDS];
};

struct accumulators {
  __m512 values, mins;
};

INLINE float load_float(const uint8_t* at) {
  float value;
  memcpy(&value, at, sizeof value);
  return value;
}

// Returns the value at which a sub-block's dot product starts: the contribution of the offset, for types that have one.
INLINE __m512i initial_dot(const int type, const struct column_terms* terms, const int index) {
  if (has_minima(type)) return _mm512_setzero_si512();
  return _mm512_set1_epi32(terms[index / DWORDS].compensation[index % DWORDS]);
}

INLINE __m512i add_mins(__m512i sum, const struct scales* scales, const uint8_t* b, const int j) {
  return _mm512_dpwssd_epi32(sum, scales->min[j], _mm512_set1_epi32(load_dword(b + Q8_K_SUMS_AT + 4 * j)));
}

// Returns how many sub-blocks, times their scales, add up to less than 2^24, so that a float still holds their sum
// exactly. The largest values are 15 times 127 times a scale of 63 for Q4_K, 31 times 127 times 63 for Q5_K, 32 times
// 127 times a scale of 128 for Q6_K, and 127 times 127 times 32 for IQ4_XS, for 32 values each. For Q2_K and Q3_K all
// eight would do; after four the sum of two floats takes the place of a conversion.
INLINE int exact_sub_blocks(const int type) {
  if (type == GGML_TYPE_Q2_K || type == GGML_TYPE_Q3_K || type == GGML_TYPE_Q4_K) return 4;
  return type == GGML_TYPE_Q5_K ? 2 : 1;
}

// Returns after how many sub-blocks ggml's kernel for four columns with repacked rows converts to a float.
INLINE int group_sub_blocks(const int type) { return type == GGML_TYPE_Q2_K ? 4 : 2; }

// Adds a sub-block's dot product times its scale to `sum`, which the first one starts.
INLINE __m512 add_sub_block(const int type, const __m512i a[DWORDS], const struct scales* scales, const uint8_t* b,
                            const struct column_terms* terms, const int j, const bool first, __m512 sum) {
  const int step = scale_count(type) / SUB_BLOCKS;
  UNROLL
  for (int h = 0; h < step; h++) {
    __m512i dot = initial_dot(type, terms, step * j + h);
    UNROLL
    for (int q = h * DWORDS / step; q < (h + 1) * DWORDS / step; q++)
      dot = _mm512_dpbusd_epi32(dot, a[q], _mm512_set1_epi32(load_dword(b + Q8_K_AT + 32 * j + 4 * q)));
    const __m512 f = _mm512_cvtepi32_ps(dot), scale = scales->scale[step * j + h];
    sum = first && h == 0 ? _mm512_mul_ps(f, scale) : _mm512_fmadd_ps(f, scale, sum);
  }
  return sum;
}

// Adds a super-block in the order of tiles: the values and the mins, which are exact integers, are joined first.
INLINE __m512 add_tiled(const int type, __m512 d, __m512 dmin, __m512 values, __m512i mins, __m512 db, __m512 sum) {
  values = _mm512_mul_ps(values, d);
  if (has_minima(type)) values = _mm512_fnmadd_ps(dmin, _mm512_cvtepi32_ps(mins), values);
  return _mm512_fmadd_ps(values, db, sum);
}

INLINE void finish_block(const int type, const enum order order, const struct scales* scales, const uint8_t* b,
                         __m512 values, struct accumulators* sum) {
  const __m512 db = _mm512_set1_ps(load_float(b));
  __m512i mins = _mm512_setzero_si512();
  if (has_minima(type)) UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) mins = add_mins(mins, scales, b, j);
  if (order == ORDER_TILED) {
    sum->values = add_tiled(type, scales->d, scales->dmin, values, mins, db, sum->values);
  } else {
    sum->values = _mm512_fmadd_ps(values, _mm512_mul_ps(scales->d, db), sum->values);
    sum->mins = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(scales->dmin, db), sum->mins);
  }
}

// Adds the values and the mins of the last `count` sub-blocks, of which j is the last.
INLINE void finish_group(const struct scales* scales, const uint8_t* b, const int j, const int count, __m512 values,
                         struct accumulators* sum) {
  const __m512 db = _mm512_set1_ps(load_float(b));
  __m512i mins = _mm512_setzero_si512();
  UNROLL
  for (int i = j - count + 1; i <= j; i++) mins = add_mins(mins, scales, b, i);
  sum->values = _mm512_fmadd_ps(values, _mm512_mul_ps(scales->d, db), sum->values);
  sum->mins = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(scales->dmin, db), sum->mins);
}

// Multiplies one super-block with n columns, of which `quarters` are in groups of four. The values are unpacked in
// `values`, or transposed but still packed in `raw`.
INLINE void k_quant_step(const int type, const enum order order, const int n, const int quarters,
                         const struct scales* scales, const __m512i (*values)[DWORDS], const __m512i* raw,
                         const struct columns* x, const uint8_t* b, const struct column_terms* terms,
                         struct accumulators sum[K_QUANT_COLUMNS]) {
  __m512 partial[K_QUANT_COLUMNS], half[K_QUANT_COLUMNS];
  __m512i whole[K_QUANT_COLUMNS];
  UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) {
    __m512i a[DWORDS];
    if (raw) unpack_sub_block(type, raw, j, a);
    UNROLL
    for (int i = 0; i < n; i++) {
      const int exact = i < quarters ? group_sub_blocks(type) : exact_sub_blocks(type);
      const uint8_t* bi = b + i * x->bytes;
      partial[i] = add_sub_block(type, raw ? a : values[j], scales, bi, terms + 2 * i * x->blocks, j, j % exact == 0,
                                 partial[i]);
      if (j % exact < exact - 1) continue;
      if (i < quarters) {
        finish_group(scales, bi, j, exact, partial[i], &sum[i]);
      } else if (exact == SUB_BLOCKS / 2) {
        // Both floats are exact, so their sum is rounded as the integer would be.
        half[i] = j < SUB_BLOCKS / 2 ? partial[i] : _mm512_add_ps(half[i], partial[i]);
      } else {
        const __m512i exactly = _mm512_cvtps_epi32(partial[i]);
        whole[i] = j < exact ? exactly : _mm512_add_epi32(whole[i], exactly);
      }
    }
  }
  UNROLL
  for (int i = quarters; i < n; i++) {
    const __m512 sum_of_sub_blocks = exact_sub_blocks(type) == SUB_BLOCKS / 2 ? half[i] : _mm512_cvtepi32_ps(whole[i]);
    finish_block(type, order, scales, b + i * x->bytes, sum_of_sub_blocks, &sum[i]);
  }
}

// Multiplies a panel with n columns from j on. The packed panel is in `packed`; if that is NULL, the panel is packed on
// the way.
INLINE void k_quant_tile(const int type, const enum order order, const int n, const int quarters,
                         const struct panel* panel, const struct packed_super_block* packed, const struct columns* x,
                         size_t j) {
  struct accumulators sum[K_QUANT_COLUMNS];
  UNROLL
  for (int i = 0; i < n; i++) sum[i] = (struct accumulators){_mm512_setzero_ps(), _mm512_setzero_ps()};
  const uint8_t* b = x->b + j * x->bytes;
  const struct column_terms* terms = has_minima(type) ? x->terms : x->terms + 2 * j * x->blocks;
  for (size_t k = 0; k < x->blocks; k++, b += Q8_K_BYTES, terms += 2) {
    if (packed) {
      k_quant_step(type, order, n, quarters, &packed[k].scales, packed[k].a, NULL, x, b, terms, sum);
    } else {
      struct scales scales;
      __m512i raw[RAW_REGISTERS];
      unpack_scales(type, panel, k, &scales);
      transpose_super_block(type, panel, k, raw);
      k_quant_step(type, order, n, quarters, &scales, NULL, raw, x, b, terms, sum);
    }
  }
  UNROLL
  for (int i = 0; i < n; i++) {
    const __m512 c = order == ORDER_TILED ? sum[i].values : _mm512_sub_ps(sum[i].values, sum[i].mins);
    _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, panel->store_mask, c);
  }
}

INLINE void pack_super_blocks(const int type, const struct panel* panel, size_t blocks,
                              struct packed_super_block* out) {
  for (size_t k = 0; k < blocks; k++, out++) {
    __m512i raw[RAW_REGISTERS];
    unpack_scales(type, panel, k, &out->scales);
    transpose_super_block(type, panel, k, raw);
    UNROLL
    for (int j = 0; j < SUB_BLOCKS; j++) unpack_sub_block(type, raw, j, out->a[j]);
  }
}

// Multiplies a panel that serves as few columns as one tile takes, and need not be packed. False: the columns are more. A
// tile keeps its sums in registers, so it has a constant number of columns.
INLINE bool few_columns(const int type, const enum order order, const struct panel* panel, const struct columns* x,
                        size_t n) {
#define TILE(columns)                                                                                        \
  case columns:                                                                                              \
    k_quant_tile(type, order, columns, order == ORDER_REPACKED ? columns / REPACKED_COLUMNS * REPACKED_COLUMNS : 0, \
                 panel, NULL, x, 0);                                                                         \
    return true
  switch (n) {
    TILE(1);
    TILE(2);
    TILE(3);
    TILE(4);
    TILE(5);
    TILE(6);
    TILE(7);
    TILE(8);
  }
#undef TILE
  return false;
}

// The place of a column in the batch decides which of ggml's kernels is followed. So x must start at a group of
// REPACKED_COLUMNS of the whole product.
INLINE void repacked_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                             struct packed_super_block* packed) {
  const int eight = K_QUANT_COLUMNS, four = REPACKED_COLUMNS;
  if (few_columns(type, ORDER_REPACKED, panel, x, n)) return;
  size_t j = 0;
  pack_super_blocks(type, panel, x->blocks, packed);
  for (; j + eight <= n; j += eight) k_quant_tile(type, ORDER_REPACKED, eight, eight, panel, packed, x, j);
  for (; j + four <= n; j += four) k_quant_tile(type, ORDER_REPACKED, four, four, panel, packed, x, j);
  for (; j < n; j++) k_quant_tile(type, ORDER_REPACKED, 1, 0, panel, packed, x, j);
}

// Gives each column the bits that it has as the only one.
INLINE void batch_invariant_product(const int type, const struct panel* panel, const struct columns* x, size_t n,
                                    struct packed_super_block* packed) {
  if (n == 1) {
    k_quant_tile(type, ORDER_REPACKED, 1, 0, panel, NULL, x, 0);
    return;
  }
  size_t j = 0;
  pack_super_blocks(type, panel, x->blocks, packed);
  for (; j + 2 <= n; j += 2) k_quant_tile(type, ORDER_REPACKED, 2, 0, panel, packed, x, j);
  if (j < n) k_quant_tile(type, ORDER_REPACKED, 1, 0, panel, packed, x, j);
}

// A super-block for the order of dot products: eight sums as in matmul_q8_0.h, each with one exact integer for a
// super-block. The mins of Q5_K have a sum of their own. The offset of Q6_K is subtracted from the eight integers, two
// sums of 16 values from each. Those of Q3_K and IQ4_XS are subtracted from each dword's product, where ggml's factors
// have a sign: a column has the terms of matmul_q8_0.h for each sub-block.
struct vec_dot_super_block {
  __m512 d, dmin;
  __m512i a[SUB_BLOCKS][DWORDS];
  __m512i scale[2 * SUB_BLOCKS];  // 16-bit factors, each twice; once for Q3_K; integers of 32 bits for IQ4_XS
  __m512i min[SUB_BLOCKS];
};

INLINE void unpack_vec_dot_super_block(const int type, const struct panel* panel, size_t k,
                                       struct vec_dot_super_block* out) {
  struct scales scales;
  __m512i raw[RAW_REGISTERS];
  unpack_scales(type, panel, k, &scales);
  transpose_super_block(type, panel, k, raw);
  UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) unpack_sub_block(type, raw, j, out->a[j]);
  out->d = scales.d;
  out->dmin = scales.dmin;
  UNROLL
  for (int i = 0; i < scale_count(type); i++) {
    const __m512i scale = _mm512_cvtps_epi32(scales.scale[i]), low = _mm512_set1_epi32(0xffff);
    out->scale[i] = type == GGML_TYPE_IQ4_XS ? scale
                    : type == GGML_TYPE_Q3_K ? _mm512_and_si512(scale, low)
                                             : masked_or(scale, low, _mm512_slli_epi32(scale, 16));
  }
  UNROLL
  for (int i = 0; i < SUB_BLOCKS; i++)
    out->min[i] = type == GGML_TYPE_Q6_K ? _mm512_sub_epi16(_mm512_setzero_si512(), scales.min[i]) : scales.min[i];
}

// The step for types whose factors have a sign in ggml.
INLINE void signed_vec_dot_step(const int type, const struct vec_dot_super_block* block, const uint8_t* b,
                                const struct column_terms* terms, __m512 sum[DWORDS + 1]) {
  const int step = scale_count(type) / SUB_BLOCKS;
  const __m512 d = _mm512_mul_ps(block->d, _mm512_set1_ps(load_float(b)));
  __m512i lane[DWORDS];
  UNROLL
  for (int q = 0; q < DWORDS; q++) lane[q] = _mm512_setzero_si512();
  UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) UNROLL
  for (int q = 0; q < DWORDS; q++) {
    const __m512i column = _mm512_set1_epi32(load_dword(b + Q8_K_AT + 32 * j + 4 * q));
    const __m512i from = _mm512_set1_epi32(terms[j].compensation[q]);
    const __m512i scale = block->scale[step * j + q * step / DWORDS];
    const __m512i dot = _mm512_dpbusd_epi32(from, block->a[j][q], column);
    // The product of Q3_K fits into 16 bits, and the upper factor is zero.
    lane[q] = type == GGML_TYPE_Q3_K ? _mm512_dpwssd_epi32(lane[q], dot, scale)
                                     : _mm512_add_epi32(lane[q], _mm512_mullo_epi32(dot, scale));
  }
  UNROLL
  for (int q = 0; q < DWORDS; q++) sum[q] = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(lane[q]), sum[q]);
}

INLINE void vec_dot_step(const int type, const struct vec_dot_super_block* block, const uint8_t* b,
                         __m512 sum[DWORDS + 1]) {
  const int step = scale_count(type) / SUB_BLOCKS;
  const __m512 db = _mm512_set1_ps(load_float(b)), d = _mm512_mul_ps(block->d, db);
  __m512i lane[DWORDS], mins = _mm512_setzero_si512();
  UNROLL
  for (int q = 0; q < DWORDS; q++) {
    const __m512i sums = _mm512_set1_epi32(load_dword(b + Q8_K_SUMS_AT + 4 * q));
    lane[q] = _mm512_setzero_si512();
    if (type == GGML_TYPE_Q6_K)
      lane[q] = _mm512_dpwssd_epi32(lane[q], block->min[q], sums);
    else
      mins = _mm512_dpwssd_epi32(mins, block->min[q], sums);
  }
  UNROLL
  for (int j = 0; j < SUB_BLOCKS; j++) UNROLL
  for (int q = 0; q < DWORDS; q++) {
    // Two values of six bits, times 127 each, stay far below 2^15, so that nothing saturates.
    const __m512i twos =
        _mm512_maddubs_epi16(block->a[j][q], _mm512_set1_epi32(load_dword(b + Q8_K_AT + 32 * j + 4 * q)));
    lane[q] = _mm512_dpwssd_epi32(lane[q], twos, block->scale[step * j + q * step / DWORDS]);
  }
  UNROLL
  for (int q = 0; q < DWORDS; q++) sum[q] = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(lane[q]), sum[q]);
  if (type != GGML_TYPE_Q6_K)
    sum[DWORDS] = _mm512_fnmadd_ps(_mm512_mul_ps(block->dmin, db), _mm512_cvtepi32_ps(mins), sum[DWORDS]);
}

// Multiplies a panel with the n <= TILED_COLUMNS columns from j on in the order of ggml's dot products.
INLINE void vec_dot_columns(const int type, const struct panel* panel, const struct columns* x, size_t j, size_t n) {
  __m512 sum[TILED_COLUMNS][DWORDS + 1];
  for (size_t i = 0; i < n; i++)
    for (int q = 0; q <= DWORDS; q++) sum[i][q] = _mm512_setzero_ps();
  for (size_t k = 0; k < x->blocks; k++) {
    struct vec_dot_super_block block;
    unpack_vec_dot_super_block(type, panel, k, &block);
    for (size_t i = 0; i < n; i++) {
      const uint8_t* b = x->b + (j + i) * x->bytes + k * Q8_K_BYTES;
      if (type == GGML_TYPE_Q3_K || type == GGML_TYPE_IQ4_XS)
        signed_vec_dot_step(type, &block, b, x->terms + ((j + i) * x->blocks + k) * SUB_BLOCKS, sum[i]);
      else
        vec_dot_step(type, &block, b, sum[i]);
    }
  }
  for (size_t i = 0; i < n; i++) {
    const __m512 c =
        has_minima(type) ? _mm512_add_ps(reduce_lanes(sum[i]), sum[i][DWORDS]) : reduce_lanes(sum[i]);
    _mm512_mask_storeu_ps(x->c + (j + i) * x->ldc, panel->store_mask, c);
  }
}

// Multiplies a panel with columns in the order of ggml's dot products. Each column gets the bits that it has alone.
INLINE void vec_dot_product(const int type, const struct panel* panel, const struct columns* x, size_t n) {
  for (size_t j = 0; j < n; j += TILED_COLUMNS)
    vec_dot_columns(type, panel, x, j, n - j < TILED_COLUMNS ? n - j : TILED_COLUMNS);
}
