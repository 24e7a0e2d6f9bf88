// The common part of the two ways of computing attention: position by position (attention.c, attention_decode.h) and
// in tiles (attention_tiled.c).
#pragma once

#include <math.h>
#include <string.h>

#include "avx512.h"
#include "ggml_abi.h"

// The library is compiled without contraction (-ffp-contract=off): a product is rounded before it is added to
// something, unless fmadd says otherwise.

enum {
  LANES = 16,
  MASKED = 0xfc00,  // the bits of minus infinity as a 16-bit float
};

struct attention {
  const struct ggml_tensor *q, *k, *v, *mask, *sinks;
  struct ggml_tensor* dst;
  int64_t dk, dv, keys, rows, heads, streams;
  int64_t group;  // query heads that share keys and values (grouped-query attention)
  float scale;
  const bool* prompts;  // for each stream, if its rows are tokens of a prompt; NULL: all are
};

struct query_index {  // of a row of queries, or of the first of several rows or heads
  int64_t stream, head, row;
};

static inline const char* tensor_row(const struct ggml_tensor* t, int64_t i1, int64_t i2, int64_t i3) {
  return (const char*)t->data + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
}
static inline const float* query(const struct attention* a, struct query_index p) {
  return (const float*)tensor_row(a->q, p.row, p.head, p.stream);
}
static inline const uint16_t* mask_row(const struct attention* a, struct query_index p) {
  const struct ggml_tensor* m = a->mask;
  if (!m) return NULL;
  // Divisions take long, and most masks are the same for all heads.
  const int64_t head = m->ne[2] == 1 ? 0 : p.head % m->ne[2], stream = m->ne[3] == 1 ? 0 : p.stream % m->ne[3];
  return (const uint16_t*)tensor_row(m, p.row, head, stream);
}
static inline const char* first_position(const struct attention* a, const struct ggml_tensor* t, struct query_index p) {
  return tensor_row(t, 0, p.head / a->group, p.stream / (a->q->ne[3] / t->ne[3]));
}
static inline float* output_row(const struct attention* a, struct query_index p) {
  const struct ggml_tensor* d = a->dst;
  return (float*)((char*)d->data + ((p.stream * d->ne[2] + p.row) * d->ne[1] + p.head) * d->nb[1]);
}

// Prefetches a key or a value. Keys and values of a long context come from memory, in an order that the hardware does
// not foresee.
INLINE void prefetch_row(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
}

INLINE __m512 load_half(const uint16_t* h) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void*)h)); }

// The same into the second-level cache. A tile needs its rows later, and would wait for the few lines that the first
// level can have under way.
INLINE void prefetch_row_early(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T1);
}

INLINE void transpose16x16(__m512 x[LANES]) {
  __m512 y[LANES];
  for (int i = 0; i < LANES; i += 4) {
    const __m512 low01 = _mm512_unpacklo_ps(x[i], x[i + 1]), high01 = _mm512_unpackhi_ps(x[i], x[i + 1]);
    const __m512 low23 = _mm512_unpacklo_ps(x[i + 2], x[i + 3]), high23 = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
    y[i] = _mm512_shuffle_ps(low01, low23, 0x44);
    y[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
    y[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    y[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }
  for (int i = 0; i < 4; i++) {
    const __m512 even0 = _mm512_shuffle_f32x4(y[i], y[i + 4], 0x88), odd0 = _mm512_shuffle_f32x4(y[i], y[i + 4], 0xdd);
    const __m512 even1 = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(y[i + 8], y[i + 12], 0xdd);
    x[i] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    x[i + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    x[i + 8] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    x[i + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}

// Adds a sink, which takes part in the sum of weights and has no value. ggml's compiler fused this sum for tiled
// prefill only, so `fused` says which form has ggml's bits.
INLINE void add_sink(const struct attention* a, int64_t head, float* max, float* sum, float* v, bool fused) {
  const float sink = ((const float*)a->sinks->data)[head];
  float rescale = 1, weight = 1;
  if (sink > *max) {
    rescale = expf(*max - sink);
    *max = sink;
    for (int64_t i = 0; i < a->dv; i += LANES)
      _mm512_storeu_ps(v + i, _mm512_mul_ps(_mm512_loadu_ps(v + i), _mm512_set1_ps(rescale)));
  } else {
    weight = expf(sink - *max);
  }
  *sum = fused ? __builtin_fmaf(*sum, rescale, weight) : *sum * rescale + weight;
}

// Adds the result of later positions to that of earlier ones. Without a visible position the later sum is 0, and the
// maximum is minus infinity, from which expf would make NaN.
INLINE void merge(float* max, float* sum, float* v, float later_max, float later_sum, const float* later_v,
                  int64_t dv) {
  if (later_sum == 0) return;
  const float top = later_max > *max ? later_max : *max, old = expf(*max - top), new = expf(later_max - top);
  for (int64_t i = 0; i < dv; i += LANES) {
    const __m512 more = _mm512_mul_ps(_mm512_loadu_ps(later_v + i), _mm512_set1_ps(new));
    _mm512_storeu_ps(v + i, _mm512_fmadd_ps(_mm512_loadu_ps(v + i), _mm512_set1_ps(old), more));
  }
  *sum = __builtin_fmaf(*sum, old, later_sum * new);
  *max = top;
}

INLINE void store_normalized(const struct attention* a, struct query_index p, float sum, const float* v) {
  float* out = output_row(a, p);
  // A row whose positions are all masked has no weights, and its result is zero as in ggml.
  const __m512 scale = _mm512_set1_ps(sum == 0 ? 0 : 1 / sum);
  for (int64_t i = 0; i < a->dv; i += LANES) _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(v + i), scale));
}

// Returns into how many parts to cut the heads that share keys, values and the mask, so that there is work for all
// threads.
static inline int64_t split_heads(const struct attention* a, int64_t at_most, int64_t items, int64_t wanted) {
  // Heads with masks of their own see different positions, so none are taken together.
  if (a->mask && a->mask->ne[2] > 1) return a->group;
  int64_t parts = (a->group + at_most - 1) / at_most;
  while (parts < a->group && items * parts < wanted) parts++;
  return parts;
}

// Returns the piece of work that this thread takes after piece i. One thread alone needs no counter.
static inline int64_t next_piece(const struct ggml_compute_params* params, int64_t i) {
  return params->nth == 1 ? i + 1 : ggml.chunk_add(params->threadpool, 1);
}

// Tiled attention (attention_tiled.c): whether a thread's scratch memory has room for a tile, and the computation.
HIDDEN bool puna_tiles_fit(const struct ggml_compute_params* params, const struct attention* a);
HIDDEN void puna_attend_tiles(const struct ggml_compute_params* params, const struct attention* a);
// The same for a single sampled token, whose positions the threads share. False: the scratch memory does not suffice.
HIDDEN bool puna_attend_split_tiles(const struct ggml_compute_params* params, const struct attention* a);
