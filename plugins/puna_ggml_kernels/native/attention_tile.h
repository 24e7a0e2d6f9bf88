// The products of a tile (attention_tiled.c): queries times keys, and weights times values, for up to
// QUERY_ROWS rows of queries that share keys and values.
//
// Sums run over the elements of a key, and over positions, in ascending order. So the lanes of a register are positions
// in the first product and elements of a value in the second, and keys have to be transposed. A tile holds its
// transposed keys as 16-bit floats, and values stay where they are in the KV cache. Both are converted to 32 bits just
// before they are multiplied: one conversion serves all rows, and tiles of 32-bit floats would not fit into the
// first-level cache.
//
// Each number of rows has functions of its own, since sums are registers. The last token of a prompt whose beginning is
// cached is computed alone, and it has no more rows than there are heads that share keys and values.
#pragma once

#include "attention.h"

enum {
  TILE_POSITIONS = 64,  // positions of a tile; ggml takes maxima and sums over so many
  QUERY_ROWS = 6,       // rows of queries at a time: their sums with TILE_POSITIONS columns fill 24 of 32 registers
  HALF = LANES / 2,
};

struct tile {  // TILE_POSITIONS positions
  int64_t from;
  int count;
  const char *keys, *values;  // of the first position and the ones after it, in the KV cache
  bool shared;                // whether more rows use it than are computed at a time
  bool ready;                 // whether keys are transposed: those that the rows see, or all keys of a shared tile
  // Transposed keys, in blocks of LANES elements and LANES positions: block[element / LANES][position / LANES]. In a
  // block, line e has element e of each position, and then element e + HALF.
  uint16_t (*block)[TILE_POSITIONS / LANES][HALF][2][LANES];
};

// Transposes LANES elements of LANES keys. Pairs of registers are joined until a quarter of a register has the same
// element of eight keys; the last step crosses quarters and brings together all sixteen.
INLINE void transpose_keys(const char* const key[LANES], int64_t element, uint16_t block[HALF][2][LANES]) {
  __m512i of1[HALF], of2[HALF], of4[HALF];
  for (int p = 0; p < HALF; p++) {
    const __m256i low = _mm256_loadu_si256((const void*)((const uint16_t*)key[p] + element));
    const __m256i high = _mm256_loadu_si256((const void*)((const uint16_t*)key[p + HALF] + element));
    of1[p] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  for (int p = 0; p < HALF; p += 2) {
    of2[p] = _mm512_unpacklo_epi16(of1[p], of1[p + 1]);
    of2[p + 1] = _mm512_unpackhi_epi16(of1[p], of1[p + 1]);
  }
  for (int p = 0; p < HALF; p += 4)
    for (int i = 0; i < 2; i++) {
      of4[p + 2 * i] = _mm512_unpacklo_epi32(of2[p + i], of2[p + 2 + i]);
      of4[p + 2 * i + 1] = _mm512_unpackhi_epi32(of2[p + i], of2[p + 2 + i]);
    }
  const __m512i even = _mm512_setr_epi64(0, 8, 4, 12, 2, 10, 6, 14), odd = _mm512_setr_epi64(1, 9, 5, 13, 3, 11, 7, 15);
  for (int e = 0; e < HALF; e++)
    _mm512_store_si512(block[e], _mm512_permutex2var_epi64(of4[e / 2], e % 2 ? odd : even, of4[4 + e / 2]));
}

// Transposes the keys of the positions from..to of a tile, both multiples of LANES. Their values are prefetched
// meanwhile.
KERNEL static void transpose_tile(const struct attention* a, struct tile* t, int from, int to) {
  for (int64_t p = from; p < to; p += LANES) {
    const char* key[LANES];
    for (int i = 0; i < LANES; i++) {
      const int64_t own = p + i < t->count ? p + i : 0;  // past the end, something that is masked later
      key[i] = t->keys + own * a->k->nb[1];
      prefetch_row_early(t->values + own * a->v->nb[1], 2 * a->dv);
    }
    for (int64_t i = 0; i < a->dk; i += LANES) transpose_keys(key, i, t->block[i / LANES][p / LANES]);
  }
  t->ready = true;
}

// Computes the scores x[rows][16 wide] of positions of the tile, from `column` on: q[row] times keys.
INLINE void multiply_keys(const int rows, const int wide, const struct attention* a, const struct tile* t,
                          const float* const* q, int column, float* x) {
  __m512 sum[QUERY_ROWS][4];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < wide; j++) sum[r][j] = _mm512_setzero_ps();
  for (int64_t i = 0; i < a->dk; i += HALF)
    for (int e = 0; e < HALF; e++) {
      __m512 key[4];
      for (int j = 0; j < wide; j++)
        key[j] = load_half(t->block[i / LANES][column / LANES + j][e][i / HALF % 2]);
      for (int r = 0; r < rows; r++) {
        const __m512 y = _mm512_set1_ps(q[r][i + e]);
        for (int j = 0; j < wide; j++) sum[r][j] = _mm512_fmadd_ps(y, key[j], sum[r][j]);
      }
    }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < wide; j++) _mm512_store_ps(x + r * TILE_POSITIONS + column + j * LANES, sum[r][j]);
}
INLINE void take_scores(const int rows, const struct attention* a, const struct tile* t, const float* const* q,
                        int from, int to, float* x) {
  for (; from + 4 * LANES <= to; from += 4 * LANES) multiply_keys(rows, 4, a, t, q, from, x);
  for (; from + 2 * LANES <= to; from += 2 * LANES) multiply_keys(rows, 2, a, t, q, from, x);
  for (; from < to; from += LANES) multiply_keys(rows, 1, a, t, q, from, x);
}

// Adds weights x[rows] times values of the positions from..to to sum_v[rows][16 wide], from `column` on. Prefetches the
// same columns of the keys at `next`, unless it is NULL.
INLINE void multiply_values(const int rows, const int wide, const struct attention* a, const struct tile* t,
                            const float* x, int from, int to, const char* next, int64_t column, float* sum_v) {
  __m512 sum[QUERY_ROWS][4];
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < wide; j++) sum[r][j] = _mm512_load_ps(sum_v + r * a->dv + column + j * LANES);
  for (int64_t p = from; p < to; p++) {
    const uint16_t* v = (const uint16_t*)(t->values + p * a->v->nb[1]) + column;
    if (next) prefetch_row_early(next + p * a->k->nb[1] + 2 * column, 2 * wide * LANES);
    __m512 value[4];
    for (int j = 0; j < wide; j++) value[j] = load_half(v + j * LANES);
    for (int r = 0; r < rows; r++) {
      const __m512 weight = _mm512_set1_ps(x[r * TILE_POSITIONS + p]);
      for (int j = 0; j < wide; j++) sum[r][j] = _mm512_fmadd_ps(weight, value[j], sum[r][j]);
    }
  }
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < wide; j++) _mm512_store_ps(sum_v + r * a->dv + column + j * LANES, sum[r][j]);
}
INLINE void add_values(const int rows, const struct attention* a, const struct tile* t, const float* x, int from,
                       int to, const char* next, float* sum_v) {
  int64_t i = 0;
  for (; i + 4 * LANES <= a->dv; i += 4 * LANES) multiply_values(rows, 4, a, t, x, from, to, next, i, sum_v);
  for (; i + 2 * LANES <= a->dv; i += 2 * LANES) multiply_values(rows, 2, a, t, x, from, to, next, i, sum_v);
  for (; i < a->dv; i += LANES) multiply_values(rows, 1, a, t, x, from, to, next, i, sum_v);
}

#define PRODUCTS_OF(rows)                                                                                        \
  KERNEL static void take_scores##rows(const struct attention* a, const struct tile* t, const float* const* q,   \
                                       int from, int to, float* x) {                                             \
    take_scores(rows, a, t, q, from, to, x);                                                                     \
  }                                                                                                              \
  KERNEL static void add_values##rows(const struct attention* a, const struct tile* t, const float* x, int from, \
                                      int to, const char* next, float* sum_v) {                                  \
    add_values(rows, a, t, x, from, to, next, sum_v);                                                            \
  }
PRODUCTS_OF(1)
PRODUCTS_OF(2)
PRODUCTS_OF(3)
PRODUCTS_OF(4)
PRODUCTS_OF(5)
PRODUCTS_OF(6)

static const struct products {
  // Computes scores x[row][position] of the tile for the positions from..to, both multiples of LANES.
  void (*take_scores)(const struct attention*, const struct tile*, const float* const* q, int from, int to, float* x);
  // Adds weights x[row][position] times values to sum_v[row] for the positions from..to. Prefetches the keys at `next`.
  void (*add_values)(const struct attention*, const struct tile*, const float* x, int from, int to, const char* next,
                     float* sum_v);
} products_of[QUERY_ROWS] = {{take_scores1, add_values1}, {take_scores2, add_values2}, {take_scores3, add_values3},
                             {take_scores4, add_values4}, {take_scores5, add_values5}, {take_scores6, add_values6}};
