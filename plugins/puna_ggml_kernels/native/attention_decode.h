// The decode path of attention: one row of queries for up to HEADS_AT_ONCE heads that share keys and values.
//
// For each position ggml computes the score (query times key), compares it with the running maximum, rescales the
// sums if the maximum grows, and adds weight times value to a sum that it keeps in 16-bit floats. Each addition
// waits for the one before. The kernel keeps that order for every element, and gains by doing independent things
// between:
//
// - it takes LANES positions as a block, computes their scores together, and lets lane = position for the softmax;
// - while it adds up the values of one block, it turns the scores of the next block into weights, one step after each
//   part of the block (softmax_step);
// - it adds to the sums of several heads, whose keys and values are loaded once.
//
// round_scaled rounds a sum to 16 bits with a comparison and two fused multiplications, instead of conversions there
// and back.
#pragma once

#include "attention.h"
#include "exponential.h"

enum {
  DOT_STEP = 4 * LANES,    // values of a dot product taken at a time, in four sums
  HEADS_AT_ONCE = 4,       // query heads taken together, at most
  MAX_HEAD_SIZE = 576,     // elements of a key or of a value, at most
  BLOCK_PARTS = 8,         // parts of a block, between which the next block's weights are computed
  UNUSUAL_CLASSES = 0x9f,  // for vfpclass: NaN, infinity or zero
};

// Weights, their sum and the sums of values are kept this many times too large (see round_scaled).
#define WEIGHT_SCALE 0x1p100f

struct decode_state {  // one row of up to HEADS_AT_ONCE heads
  _Alignas(64) float q[HEADS_AT_ONCE][MAX_HEAD_SIZE];
  float sum_v[HEADS_AT_ONCE][MAX_HEAD_SIZE];
  _Alignas(16) float sum[HEADS_AT_ONCE], max[HEADS_AT_ONCE];
};

struct visible_positions {  // positions that are not masked, and 2 LANES more to prefetch
  const char *k, *v;        // position 0 of the head's group
  const int32_t* position;
  const float* bias;
  int count;
};

struct quarters {  // of 16 registers: quarter i of register e + 4 k is at [i][e][4 k]
  _Alignas(64) float at[4][4][LANES];
};

struct position_block {  // up to LANES positions
  _Alignas(64) float weight[HEADS_AT_ONCE][LANES], rescale[HEADS_AT_ONCE][LANES];
  struct quarters dot[HEADS_AT_ONCE];
  const int32_t* position;
  int from, count;
  unsigned grows[HEADS_AT_ONCE], any;  // positions at which the maximum grows, as bits
};

// Stores a register's quarters apart. That costs nothing, where shuffles would compete with the arithmetic.
INLINE void store_quarters(struct quarters* q, int e, int k, __m512 x) {
  _mm_store_ps(q->at[0][e] + 4 * k, _mm512_castps512_ps128(x));
  _mm_store_ps(q->at[1][e] + 4 * k, _mm512_extractf32x4_ps(x, 1));
  _mm_store_ps(q->at[2][e] + 4 * k, _mm512_extractf32x4_ps(x, 2));
  _mm_store_ps(q->at[3][e] + 4 * k, _mm512_extractf32x4_ps(x, 3));
}

// Returns the sum of the lanes of register i in lane i. ggml adds lanes 8 apart, 4 apart, 2 apart, then neighbors.
INLINE __m512 reduce_dots(const struct quarters* q) {
  __m512 quad[4], half[2];
  for (int e = 0; e < 4; e++) {
    const __m512 even = _mm512_add_ps(_mm512_load_ps(q->at[0][e]), _mm512_load_ps(q->at[2][e]));
    quad[e] = _mm512_add_ps(even, _mm512_add_ps(_mm512_load_ps(q->at[1][e]), _mm512_load_ps(q->at[3][e])));
  }
  for (int i = 0; i < 2; i++) {
    const __m512d one = _mm512_castps_pd(quad[2 * i]), two = _mm512_castps_pd(quad[2 * i + 1]);
    const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(one, two));
    half[i] = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(one, two)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(half[0], half[1], 0x88), _mm512_shuffle_ps(half[0], half[1], 0xdd));
}

// Returns the sum of the four products of a dot product of DOT_STEP values. Products of 16-bit floats are exact in 32
// bits, so that two of the four can be fused.
INLINE __m512 dot_step(const __m512 q[4], const __m512 x[4]) {
  const __m512 even = _mm512_fmadd_ps(q[0], x[0], _mm512_mul_ps(q[2], x[2]));
  return _mm512_add_ps(even, _mm512_fmadd_ps(q[1], x[1], _mm512_mul_ps(q[3], x[3])));
}

INLINE void dot_keys(const int n, const bool one_step, const struct attention* a, const struct decode_state* state,
                     const struct visible_positions* visible, struct position_block* b) {
  __m512 q[HEADS_AT_ONCE][4];
  for (int h = 0; h < n; h++)
    for (int j = 0; j < 4; j++) q[h][j] = _mm512_load_ps(state->q[h] + j * LANES);
  // Position e + 4 k, since reduce_dots finds the sums of four registers side by side.
  for (int e = 0; e < 4; e++) _Pragma("GCC unroll 4") for (int k = 0; k < 4; k++) {
      const int32_t* position = b->position + e + 4 * k;
      const uint16_t* key = (const uint16_t*)(visible->k + position[0] * a->k->nb[1]);
      __m512 part[HEADS_AT_ONCE][4];
      prefetch_row(visible->k + position[LANES] * a->k->nb[1], one_step ? 2 * DOT_STEP : 2 * a->dk);
      if (one_step) {
        for (int j = 0; j < 4; j++) part[0][j] = load_half(key + j * LANES);
        for (int h = 0; h < n; h++) store_quarters(b->dot + h, e, k, dot_step(q[h], part[0]));
        continue;
      }
      for (int h = 0; h < n; h++)
        for (int j = 0; j < 4; j++) part[h][j] = _mm512_setzero_ps();
      for (int64_t i = 0; i + DOT_STEP <= a->dk; i += DOT_STEP)
        for (int j = 0; j < 4; j++) {
          const __m512 x = load_half(key + i + j * LANES);
          for (int h = 0; h < n; h++)
            part[h][j] = _mm512_fmadd_ps(_mm512_load_ps(state->q[h] + i + j * LANES), x, part[h][j]);
        }
      for (int h = 0; h < n; h++) {
        const __m512 even = _mm512_add_ps(part[h][0], part[h][2]);
        store_quarters(b->dot + h, e, k, _mm512_add_ps(even, _mm512_add_ps(part[h][1], part[h][3])));
      }
    }
}

// Adds the elements beyond the last multiple of DOT_STEP to each dot product, in double precision and one product
// after the other.
KERNEL static __m512 add_dot_rest(const struct attention* a, const float* q, const struct visible_positions* visible,
                                  const struct position_block* b, __m512 dot) {
  __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(dot)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(dot, 1));
  for (int64_t i = a->dk / DOT_STEP * DOT_STEP; i < a->dk; i += LANES) {
    __m512 x[LANES];
    for (int p = 0; p < LANES; p++) {
      const uint16_t* key = (const uint16_t*)(visible->k + b->position[p] * a->k->nb[1]);
      x[p] = _mm512_mul_ps(_mm512_load_ps(q + i), load_half(key + i));
    }
    transpose16x16(x);
    for (int d = 0; d < LANES; d++) {
      low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(x[d])));
      high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x[d], 1)));
    }
  }
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

// Handles a block in which the maximum grows: returns the scores less the maximum at each position, or the old maximum
// less the new one where it grows.
__attribute__((noinline)) KERNEL static __m512 follow_new_maximum(struct decode_state* state, struct position_block* b,
                                                                  int h, __m512 score) {
  const __m512 none = _mm512_set1_ps(-INFINITY), max = _mm512_set1_ps(state->max[h]);
  // A NaN never becomes the maximum, since ggml's comparison with it is false.
  __m512 run = _mm512_mask_mov_ps(score, _mm512_cmp_ps_mask(score, score, _CMP_UNORD_Q), none);
  const __m512i fill = _mm512_castps_si512(none);
  // The running maximum over the lanes: each step compares with the lanes 1, 2, 4 and 8 below.
  run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 15)));
  run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 14)));
  run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 12)));
  run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 8)));
  run = _mm512_max_ps(run, max);
  const __m512i previous = _mm512_alignr_epi32(_mm512_castps_si512(run), _mm512_castps_si512(max), 15);
  const __m512 before = _mm512_castsi512_ps(previous);
  const __mmask16 grows = _mm512_cmp_ps_mask(score, before, _CMP_GT_OQ);
  state->max[h] = _mm512_reduce_max_ps(run);
  b->grows[h] = grows;
  b->any |= grows;
  return _mm512_mask_sub_ps(_mm512_sub_ps(score, before), grows, before, score);
}

// The first step of the softmax: from dot products to scores less the maximum at each position.
INLINE void subtract_maximum(const struct attention* a, struct decode_state* state,
                             const struct visible_positions* visible, struct position_block* b, int h) {
  const __m512 max = _mm512_set1_ps(state->max[h]);
  __m512 score = reduce_dots(b->dot + h);
  if (__builtin_expect(a->dk % DOT_STEP, 0)) score = add_dot_rest(a, state->q[h], visible, b, score);
  score = _mm512_add_ps(_mm512_mul_ps(score, _mm512_set1_ps(a->scale)), _mm512_loadu_ps(visible->bias + b->from));
  score = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)((1u << b->count) - 1), score);
  b->grows[h] = 0;
  __m512 below = _mm512_sub_ps(score, max);
  if (__builtin_expect(_mm512_cmp_ps_mask(score, max, _CMP_GT_OQ), 0)) below = follow_new_maximum(state, b, h, score);
  // The exponential of -104 is 0. A NaN is the second operand and remains.
  _mm512_store_ps(b->weight[h], _mm512_max_ps(_mm512_set1_ps(-104), below));
}

// The second step of the softmax: from there to weights.
INLINE void scores_to_weights(struct position_block* b, int h) {
  float* weight = b->weight[h];
  const __m256 low = expf_nonpositive8(_mm256_load_ps(weight)), high = expf_nonpositive8(_mm256_load_ps(weight + 8));
  _mm256_store_ps(weight, _mm256_mul_ps(low, _mm256_set1_ps(WEIGHT_SCALE)));
  _mm256_store_ps(weight + 8, _mm256_mul_ps(high, _mm256_set1_ps(WEIGHT_SCALE)));
  _mm512_store_ps(b->rescale[h], _mm512_set1_ps(1));
  if (__builtin_expect(b->grows[h], 0)) {
    const __m512 e = _mm512_load_ps(weight);
    _mm512_mask_store_ps(b->rescale[h], (__mmask16)b->grows[h], _mm512_mul_ps(e, _mm512_set1_ps(1 / WEIGHT_SCALE)));
    _mm512_mask_store_ps(weight, (__mmask16)b->grows[h], _mm512_set1_ps(WEIGHT_SCALE));
  }
}

// Does one of the two steps of each of n heads.
INLINE void softmax_step(const int step, const struct attention* a, struct decode_state* state,
                         const struct visible_positions* visible, struct position_block* b) {
  if (step % 2)
    scores_to_weights(b, step / 2);
  else
    subtract_maximum(a, state, visible, b, step / 2);
}

// Adds the weights of all heads to their sums, position by position. Past the last position weights are 0.
INLINE void add_weights(const int n, struct decode_state* state, const struct position_block* b) {
  if (__builtin_expect(b->any, 0)) {
    for (int h = 0; h < n; h++)
      for (int p = 0; p < b->count; p++)
        state->sum[h] = __builtin_fmaf(state->sum[h], b->rescale[h][p], b->weight[h][p]);
    return;
  }
  // A sum of weights is one chain of dependent additions. The four heads' chains run in the lanes of one register.
  __m512 w[HEADS_AT_ONCE] = {0};
  for (int h = 0; h < n; h++) w[h] = _mm512_load_ps(b->weight[h]);
  const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(w[0], w[1]));
  const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(w[2], w[3]));
  const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(w[0], w[1]));
  const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(w[2], w[3]));
  _Alignas(64) double heads[4][8];  // the weights of position e + 4 k are at [e][2 k]
  _mm512_store_pd(heads[0], _mm512_unpacklo_pd(low01, low23));
  _mm512_store_pd(heads[1], _mm512_unpackhi_pd(low01, low23));
  _mm512_store_pd(heads[2], _mm512_unpacklo_pd(high01, high23));
  _mm512_store_pd(heads[3], _mm512_unpackhi_pd(high01, high23));
  __m128 sum = _mm_load_ps(state->sum);
  for (int p = 0; p < LANES; p++) sum = _mm_add_ps(sum, _mm_castpd_ps(_mm_load_pd(heads[p % 4] + p / 4 * 2)));
  _mm_store_ps(state->sum, sum);
}

INLINE __m512 round_to_half(__m512 x) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

// Rounds x, which is WEIGHT_SCALE times too large, to 16-bit precision and back. The difference x - 8192 x is so much
// larger than x that it keeps just the bits of x that a 16-bit float has; adding 8192 x again leaves x rounded. Below
// the least normal 16-bit float a constant takes the place of x in both products, since subnormals have a fixed
// precision. WEIGHT_SCALE makes the difference overflow where x is 2^15 or more before scaling: then a sum stays
// infinite or becomes NaN. The sign of 0 is lost. add_values_exactly computes both cases again.
INLINE __m512 round_scaled(__m512 x) {
  const __m512 most = _mm512_range_ps(x, _mm512_set1_ps(0x1.8p-14f * WEIGHT_SCALE), 3), shift = _mm512_set1_ps(0x1p13f);
  return _mm512_fmadd_ps(most, shift, _mm512_fnmadd_ps(most, shift, x));
}

// Adds values d to d + 16 of a block times their weights to a head's sum with real conversions, where round_scaled does
// not do.
__attribute__((noinline)) KERNEL static void add_values_exactly(const struct attention* a,
                                                                const struct visible_positions* visible,
                                                                const struct position_block* b, int h, int64_t d,
                                                                float* sum_v) {
  const __m512 unit = _mm512_set1_ps(1 / WEIGHT_SCALE);
  __m512 sum = _mm512_mul_ps(_mm512_load_ps(sum_v), unit);
  for (int p = 0; p < b->count; p++) {
    const __m512 x = load_half((const uint16_t*)(visible->v + b->position[p] * a->v->nb[1]) + d);
    if (b->any >> p & 1) sum = round_to_half(_mm512_mul_ps(sum, _mm512_set1_ps(b->rescale[h][p])));
    sum = round_to_half(_mm512_fmadd_ps(x, _mm512_mul_ps(_mm512_set1_ps(b->weight[h][p]), unit), sum));
  }
  _mm512_store_ps(sum_v, _mm512_mul_ps(sum, _mm512_set1_ps(WEIGHT_SCALE)));
}

// Adds values d to d + 16 wide of each position times its weight to the heads' sums. Between the parts of the block it
// computes weights of the next block.
INLINE void add_values(const int n, const int wide, const struct attention* a, struct decode_state* state,
                       const struct visible_positions* visible, const struct position_block* b, int64_t d,
                       struct position_block* next) {
  __m512 sum[HEADS_AT_ONCE][8];
  // Only with the first values, since each softmax step must run once for a block.
  const int steps = d == 0 && next->count ? 2 * n : 0;
  for (int h = 0; h < n; h++)
    for (int j = 0; j < wide; j++) sum[h][j] = _mm512_load_ps(state->sum_v[h] + d + j * LANES);
  for (int part = 0; part < BLOCK_PARTS; part++) {
    for (int p = part * LANES / BLOCK_PARTS; p < (part + 1) * LANES / BLOCK_PARTS; p++) {
      const uint16_t* value = (const uint16_t*)(visible->v + b->position[p] * a->v->nb[1]) + d;
      prefetch_row(visible->v + b->position[LANES + p] * a->v->nb[1] + 2 * d, wide * 2 * LANES);
      if (__builtin_expect(b->any >> p & 1, 0))
        for (int h = 0; h < n; h++)
          for (int j = 0; j < wide; j++)  // by 1 where only another head's maximum grows
            sum[h][j] = round_scaled(_mm512_mul_ps(sum[h][j], _mm512_set1_ps(b->rescale[h][p])));
      for (int j = 0; j < wide; j++) {
        const __m512 x = load_half(value + j * LANES);
        for (int h = 0; h < n; h++)
          sum[h][j] = round_scaled(_mm512_fmadd_ps(x, _mm512_set1_ps(b->weight[h][p]), sum[h][j]));
      }
    }
    if (part < steps) softmax_step(part, a, state, visible, next);
  }
  for (int h = 0; h < n; h++)
    for (int j = 0; j < wide; j++) {
      float* sum_v = state->sum_v[h] + d + j * LANES;
      if (__builtin_expect(_mm512_fpclass_ps_mask(sum[h][j], UNUSUAL_CLASSES), 0))
        add_values_exactly(a, visible, b, h, d + j * LANES, sum_v);
      else
        _mm512_store_ps(sum_v, sum[h][j]);
    }
}

INLINE void attend_positions(const int n, const struct attention* a, struct decode_state* state,
                             const struct visible_positions* visible) {
  struct position_block two[2];
  for (int p = 0; p < LANES; p++) prefetch_row(visible->k + visible->position[p] * a->k->nb[1], 2 * a->dk);
  for (int p = 0; p < LANES; p++) prefetch_row(visible->v + visible->position[p] * a->v->nb[1], 2 * a->dv);
  // A pipeline of two blocks: each round prepares `next` and adds up `b`, the block before it. So there is one round
  // more than there are blocks, and the first one has nothing to add up.
  for (int from = 0; from < visible->count + LANES; from += LANES) {
    struct position_block *b = two + (from / LANES + 1) % 2, *next = two + from / LANES % 2;
    const int left = visible->count - from;
    next->position = visible->position + from;
    next->from = from;
    next->count = left < 0 ? 0 : left < LANES ? left : LANES;
    next->any = 0;
    if (next->count)
      a->dk == DOT_STEP ? dot_keys(n, true, a, state, visible, next) : dot_keys(n, false, a, state, visible, next);
    if (from == 0) {
      for (int step = 0; step < 2 * n; step++) softmax_step(step, a, state, visible, next);
      continue;
    }
    add_weights(n, state, b);
    int64_t d = 0;
    if (n <= 2)  // more sums in flight, since each waits for its rounding
      for (; d + 8 * LANES <= a->dv; d += 8 * LANES) add_values(n, 8, a, state, visible, b, d, next);
    for (; d + 4 * LANES <= a->dv; d += 4 * LANES) add_values(n, 4, a, state, visible, b, d, next);
    for (; d < a->dv; d += LANES) add_values(n, 1, a, state, visible, b, d, next);
  }
}
KERNEL static void attend_positions1(const struct attention* a, struct decode_state* state,
                                     const struct visible_positions* visible) {
  attend_positions(1, a, state, visible);
}
KERNEL static void attend_positions2(const struct attention* a, struct decode_state* state,
                                     const struct visible_positions* visible) {
  attend_positions(2, a, state, visible);
}
KERNEL static void attend_positions3(const struct attention* a, struct decode_state* state,
                                     const struct visible_positions* visible) {
  attend_positions(3, a, state, visible);
}
KERNEL static void attend_positions4(const struct attention* a, struct decode_state* state,
                                     const struct visible_positions* visible) {
  attend_positions(4, a, state, visible);
}
