// Attention over keys and values kept as 16-bit floats, in the place of ggml_compute_forward_flash_attn_ext.
//
// Each result has the bits that ggml's own function gives it on a processor like this one. So the order of each sum,
// what is rounded and when, and where a running maximum is taken are ggml's; what differs is that masked positions are
// passed over, exponentials are computed for sixteen positions at once, and query heads that share keys and values are
// taken together. A row of the result does not depend on which other rows are computed with it, so that rows can be
// divided among threads otherwise than ggml does.
//
// ggml has two ways. Few rows of queries add up values as 16-bit floats, position by position; that is done here. From
// 64 rows on, all is done with 32-bit floats and many positions at a time; that is in attention_tiles.c.
#include <stdatomic.h>

#include "attention.h"

enum {
  STEP = 4 * LANES,  // values of a dot product taken at a time, in four sums
  HEADS = 4,         // query heads taken together
  SEGMENT = 1024,    // positions whose mask is read at a time
  WIDEST = 576,      // values of a key or of a value
  TILED = 64,        // rows from which ggml takes them in tiles
  SPLIT = 512,       // positions from which the threads share those of a lone row
};

static atomic_long calls;
static int64_t tiled = TILED;

// Tiles from fewer rows on: a row's result in tiles does not depend on how many rows there are, so that parts of a long
// prompt get the bits of the whole, in a fraction of the time. Not while a model runs.
void puna_tile_from(int rows) { tiled = rows < TILED ? rows : TILED; }

long puna_attention_calls(void) { return atomic_load(&calls); }

INLINE __m512 rounded_to_half(__m512 x) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }

// Lane i = the sum of the lanes of x[i], added in halves: 8 apart, 4 apart, 2 apart, neighbours.
INLINE __m512 sums(const __m512 x[LANES]) {
  __m512 quad[4];
  for (int e = 0; e < 4; e++) {
    __m512 pair[2];
    for (int i = 0; i < 2; i++) {
      const __m512 one = x[e + 8 * i], two = x[e + 8 * i + 4];
      pair[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, two, 0x44), _mm512_shuffle_f32x4(one, two, 0xee));
    }
    quad[e] = _mm512_add_ps(_mm512_shuffle_f32x4(pair[0], pair[1], 0x88), _mm512_shuffle_f32x4(pair[0], pair[1], 0xdd));
  }
  __m512 half[2];
  for (int i = 0; i < 2; i++) {
    const __m512d one = _mm512_castps_pd(quad[2 * i]), two = _mm512_castps_pd(quad[2 * i + 1]);
    const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(one, two));
    half[i] = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(one, two)));
  }
  return _mm512_add_ps(_mm512_shuffle_ps(half[0], half[1], 0x88), _mm512_shuffle_ps(half[0], half[1], 0xdd));
}

static const double exp2_32nds[32] = {
    0x1p+0,
    0x1.059b0d3158574p+0,
    0x1.0b5586cf9890fp+0,
    0x1.11301d0125b51p+0,
    0x1.172b83c7d517bp+0,
    0x1.1d4873168b9aap+0,
    0x1.2387a6e756238p+0,
    0x1.29e9df51fdee1p+0,
    0x1.306fe0a31b715p+0,
    0x1.371a7373aa9cbp+0,
    0x1.3dea64c123422p+0,
    0x1.44e086061892dp+0,
    0x1.4bfdad5362a27p+0,
    0x1.5342b569d4f82p+0,
    0x1.5ab07dd485429p+0,
    0x1.6247eb03a5585p+0,
    0x1.6a09e667f3bcdp+0,
    0x1.71f75e8ec5f74p+0,
    0x1.7a11473eb0187p+0,
    0x1.82589994cce13p+0,
    0x1.8ace5422aa0dbp+0,
    0x1.93737b0cdc5e5p+0,
    0x1.9c49182a3f09p+0,
    0x1.a5503b23e255dp+0,
    0x1.ae89f995ad3adp+0,
    0x1.b7f76f2fb5e47p+0,
    0x1.c199bdd85529cp+0,
    0x1.cb720dcef9069p+0,
    0x1.d5818dcfba487p+0,
    0x1.dfc97337b9b5fp+0,
    0x1.ea4afa2a490dap+0,
    0x1.f50765b6e454p+0,
};

// exp(x) = 2^(n/32) exp(r) with the polynomial of glibc's expf, hence its bits, for x <= 0 or NaN.
INLINE __m256 exp_low8(__m256 x) {
  const __m512d wide = _mm512_cvtps_pd(x), per = _mm512_set1_pd(0x1.71547652b82fep+5), shift = _mm512_set1_pd(0x1.8p52);
  const __m512d shifted = _mm512_fmadd_pd(wide, per, shift);  // n in its low bits
  const __m512d r = _mm512_fmsub_pd(wide, per, _mm512_sub_pd(shifted, shift));
  const __m512i n = _mm512_castpd_si512(shifted);
  const double* t = exp2_32nds;
  const __m512d low = _mm512_permutex2var_pd(_mm512_loadu_pd(t), n, _mm512_loadu_pd(t + 8));
  const __m512d high = _mm512_permutex2var_pd(_mm512_loadu_pd(t + 16), n, _mm512_loadu_pd(t + 24));
  const __m512d root = _mm512_mask_mov_pd(low, _mm512_test_epi64_mask(n, _mm512_set1_epi64(16)), high);
  const __m512i power = _mm512_add_epi64(_mm512_castpd_si512(root), _mm512_slli_epi64(_mm512_srai_epi64(n, 5), 52));
  const __m512d cube = _mm512_set1_pd(0x1.c6af84b912394p-20), square = _mm512_set1_pd(0x1.ebfce50fac4f3p-13);
  const __m512d linear = _mm512_fmadd_pd(_mm512_set1_pd(0x1.62e42ff0c52d6p-6), r, _mm512_set1_pd(1));
  const __m512d y = _mm512_fmadd_pd(_mm512_fmadd_pd(cube, r, square), _mm512_mul_pd(r, r), linear);
  return _mm512_cvtpd_ps(_mm512_mul_pd(y, _mm512_castsi512_pd(power)));
}
INLINE __m512 exp_low(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-104), x);  // whose exponential is 0; NaN, the second operand, remains
  const __m256 low = exp_low8(_mm512_castps512_ps256(x)), high = exp_low8(_mm512_extractf32x8_ps(x, 1));
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

struct few {  // one row of up to HEADS heads
  float q[HEADS][WIDEST], sum_v[HEADS][WIDEST];
  float sum[HEADS], max[HEADS];
};

struct block {        // up to LANES positions that are not masked
  const char *k, *v;  // where position 0 is
  const int32_t* position;
  int count, coming;  // of them, and of those after them in `position`
  __m512 bias;
  float weight[HEADS][LANES], rescale[HEADS][LANES];
  unsigned grows[HEADS];  // positions where the maximum grows and what there is must be rescaled
};

// Keys and values of a long context come from memory, in pieces that the processor does not foresee.
INLINE void fetch(const struct block* b, int p, const char* first, size_t stride, int64_t from, int64_t to) {
  if (p >= b->coming) return;
  const char* row = first + b->position[LANES + p] * stride;
  for (int64_t i = 2 * from; i < 2 * to; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
}

INLINE void multiply_keys(const int n, const struct attention* a, const struct few* f, const struct block* b,
                          __m512* dot) {
  for (int p = 0; p < LANES; p++) {
    const uint16_t* key = (const uint16_t*)(b->k + b->position[p < b->count ? p : 0] * a->k->nb[1]);
    __m512 part[HEADS][4];
    fetch(b, p, b->k, a->k->nb[1], 0, a->dk);
    for (int h = 0; h < n; h++)
      for (int j = 0; j < 4; j++) part[h][j] = _mm512_setzero_ps();
    for (int64_t i = 0; i + STEP <= a->dk; i += STEP)
      for (int j = 0; j < 4; j++) {
        const __m512 x = from_half(key + i + j * LANES);
        for (int h = 0; h < n; h++)
          part[h][j] = _mm512_fmadd_ps(_mm512_loadu_ps(f->q[h] + i + j * LANES), x, part[h][j]);
      }
    for (int h = 0; h < n; h++)
      dot[h * LANES + p] = _mm512_add_ps(_mm512_add_ps(part[h][0], part[h][2]), _mm512_add_ps(part[h][1], part[h][3]));
  }
}

// What a multiple of STEP leaves over is added in double precision, one product after the other.
KERNEL static __m512 with_rest(const struct attention* a, const float* q, const struct block* b, __m512 dot) {
  __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(dot)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(dot, 1));
  for (int64_t i = a->dk / STEP * STEP; i < a->dk; i += LANES) {
    __m512 x[LANES];
    for (int p = 0; p < LANES; p++) {
      const uint16_t* key = (const uint16_t*)(b->k + b->position[p < b->count ? p : 0] * a->k->nb[1]);
      x[p] = _mm512_mul_ps(_mm512_loadu_ps(q + i), from_half(key + i));
    }
    transpose(x);
    for (int d = 0; d < LANES; d++) {
      low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(x[d])));
      high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x[d], 1)));
    }
  }
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
}

// From scores to weights relative to the maximum at each position, and the sum of weights.
INLINE void weigh(struct few* f, struct block* b, int h, __m512 score) {
  const __m512 none = _mm512_set1_ps(-INFINITY), one = _mm512_set1_ps(1), max = _mm512_set1_ps(f->max[h]);
  score = _mm512_mask_mov_ps(none, (__mmask16)((1u << b->count) - 1), score);
  __mmask16 grows = _mm512_cmp_ps_mask(score, max, _CMP_GT_OQ);
  __m512 below = _mm512_sub_ps(score, max);
  if (grows) {
    __m512 run = _mm512_mask_mov_ps(score, _mm512_cmp_ps_mask(score, score, _CMP_UNORD_Q), none);
    const __m512i fill = _mm512_castps_si512(none);
    run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 15)));
    run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 14)));
    run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 12)));
    run = _mm512_max_ps(run, _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(run), fill, 8)));
    run = _mm512_max_ps(run, max);
    const __m512i previous = _mm512_alignr_epi32(_mm512_castps_si512(run), _mm512_castps_si512(max), 15);
    const __m512 before = _mm512_castsi512_ps(previous);
    grows = _mm512_cmp_ps_mask(score, before, _CMP_GT_OQ);
    below = _mm512_mask_sub_ps(_mm512_sub_ps(score, before), grows, before, score);
    f->max[h] = _mm512_reduce_max_ps(run);
  }
  const __m512 e = exp_low(below);
  _mm512_storeu_ps(b->weight[h], _mm512_mask_mov_ps(e, grows, one));
  _mm512_storeu_ps(b->rescale[h], _mm512_mask_mov_ps(one, grows, e));
  b->grows[h] = grows;
  float sum = f->sum[h];
  for (int p = 0; p < b->count; p++) sum = __builtin_fmaf(sum, b->rescale[h][p], b->weight[h][p]);
  f->sum[h] = sum;
}

// Values d to d + 16 wide of each position, times its weight, to the heads' sums.
INLINE void add_values(const int n, const int wide, const struct attention* a, struct few* f, const struct block* b,
                       int64_t d) {
  __m512 sum[HEADS][8];
  unsigned grows = 0;
  for (int h = 0; h < n; h++) {
    grows |= b->grows[h];
    for (int j = 0; j < wide; j++) sum[h][j] = _mm512_loadu_ps(f->sum_v[h] + d + j * LANES);
  }
  for (int p = 0; p < b->count; p++) {
    const uint16_t* value = (const uint16_t*)(b->v + b->position[p] * a->v->nb[1]) + d;
    fetch(b, p, b->v, a->v->nb[1], d, d + wide * LANES);
    if (grows >> p & 1)
      for (int h = 0; h < n; h++)
        for (int j = 0; j < wide; j++)  // by 1 where only another head's maximum grows
          sum[h][j] = rounded_to_half(_mm512_mul_ps(sum[h][j], _mm512_set1_ps(b->rescale[h][p])));
    for (int j = 0; j < wide; j++) {
      const __m512 x = from_half(value + j * LANES);
      for (int h = 0; h < n; h++)
        sum[h][j] = rounded_to_half(_mm512_fmadd_ps(x, _mm512_set1_ps(b->weight[h][p]), sum[h][j]));
    }
  }
  for (int h = 0; h < n; h++)
    for (int j = 0; j < wide; j++) _mm512_storeu_ps(f->sum_v[h] + d + j * LANES, sum[h][j]);
}

INLINE void take_block(const int n, const struct attention* a, struct few* f, struct block* b) {
  __m512 dot[HEADS * LANES];
  multiply_keys(n, a, f, b, dot);
  for (int h = 0; h < n; h++) {
    __m512 score = sums(dot + h * LANES);
    if (a->dk % STEP) score = with_rest(a, f->q[h], b, score);
    weigh(f, b, h, _mm512_add_ps(_mm512_mul_ps(score, _mm512_set1_ps(a->scale)), b->bias));
  }
  int64_t d = 0;
  if (n <= 2)  // more sums in flight, since each waits for its two conversions
    for (; d + 8 * LANES <= a->dv; d += 8 * LANES) add_values(n, 8, a, f, b, d);
  for (; d + 4 * LANES <= a->dv; d += 4 * LANES) add_values(n, 4, a, f, b, d);
  for (; d + 2 * LANES <= a->dv; d += 2 * LANES) add_values(n, 2, a, f, b, d);
  for (; d < a->dv; d += LANES) add_values(n, 1, a, f, b, d);
}
KERNEL static void take1(const struct attention* a, struct few* f, struct block* b) { take_block(1, a, f, b); }
KERNEL static void take2(const struct attention* a, struct few* f, struct block* b) { take_block(2, a, f, b); }
KERNEL static void take3(const struct attention* a, struct few* f, struct block* b) { take_block(3, a, f, b); }
KERNEL static void take4(const struct attention* a, struct few* f, struct block* b) { take_block(4, a, f, b); }

// The positions from..to that are not masked, and their mask's values; returns how many.
KERNEL static int list(const uint16_t* mask, int64_t from, int64_t to, int32_t* position, float* bias) {
  int count = 0;
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t i = from; i < to; i += LANES) {
    __mmask16 seen = (__mmask16)(to - i < LANES ? (1u << (to - i)) - 1 : 0xffff);
    __m512 value = _mm512_setzero_ps();
    if (mask) {
      const __m256i half = _mm256_maskz_loadu_epi16(seen, mask + i);
      seen = _mm256_mask_cmpneq_epi16_mask(seen, half, _mm256_set1_epi16((short)MASKED));
      if (!seen) continue;
      value = _mm512_cvtph_ps(half);
    }
    const __m512i where = _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)i));
    _mm512_storeu_si512(position + count, _mm512_maskz_compress_epi32(seen, where));
    _mm512_storeu_ps(bias + count, _mm512_maskz_compress_ps(seen, value));
    count += __builtin_popcount(seen);
  }
  return count;
}

// One row of n heads from place p on, over the positions from..to.
KERNEL static void attend(const struct attention* a, struct place p, int n, int64_t from, int64_t to, struct few* f) {
  void (*const take[HEADS])(const struct attention*, struct few*, struct block*) = {take1, take2, take3, take4};
  int32_t position[SEGMENT + LANES];
  float bias[SEGMENT + LANES];
  struct block b = {.k = of_group(a, a->k, p), .v = of_group(a, a->v, p)};
  const uint16_t* mask = mask_row(a, p);
  for (int h = 0; h < n; h++) {
    const float* q = query(a, (struct place){p.stream, p.head + h, p.row});
    for (int64_t i = 0; i < a->dk; i += LANES) _mm512_storeu_ps(f->q[h] + i, rounded_to_half(_mm512_loadu_ps(q + i)));
    memset(f->sum_v[h], 0, a->dv * sizeof(float));
    f->sum[h] = 0;
    f->max[h] = -INFINITY;
  }
  for (int64_t i = from; i < to; i += SEGMENT) {
    const int count = list(mask, i, to - i < SEGMENT ? to : i + SEGMENT, position, bias);
    for (int j = 0; j < count; j += LANES) {
      b.position = position + j;
      b.bias = _mm512_loadu_ps(bias + j);
      b.count = count - j < LANES ? count - j : LANES;
      b.coming = count - j - b.count;
      take[n - 1](a, f, &b);
    }
  }
}

KERNEL static void few_rows(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t groups = a->heads / a->group, rows = a->rows * a->streams;
  const int64_t parts = parts_of_group(a, HEADS, groups * rows, params->nth), per = (a->group + parts - 1) / parts;
  struct few f;
  for (int64_t i = params->ith; i < rows * groups * parts; i = ggml.chunk_add(params->threadpool, 1)) {
    const int64_t group = i / parts % groups, row = i / parts / groups;
    struct place p = {row / a->rows, group * a->group + i % parts * per, row % a->rows};
    const int64_t left = (group + 1) * a->group - p.head;
    const int n = (int)(left < per ? left : per);
    if (n < 1) continue;
    attend(a, p, n, 0, a->keys, &f);
    for (int h = 0; h < n; h++, p.head++) {
      if (a->sinks) add_sink(a, p.head, &f.max[h], &f.sum[h], f.sum_v[h], false);
      store(a, p, f.sum[h], f.sum_v[h]);
    }
  }
}

// A lone row: a share of the positions for each thread, and then the shares' results are put together.
KERNEL static void split_row(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t shares = params->nth, share = (a->keys + shares - 1) / shares, size = 2 + a->dv;
  const int64_t groups = a->heads / a->group, parts = parts_of_group(a, HEADS, groups * shares, 1);
  const int64_t per = (a->group + parts - 1) / parts;
  float* partial = params->wdata;
  struct few f;
  for (int64_t i = 0; i < groups * parts; i++)
    for (int64_t s = 0; s < shares; s++) {
      // Not one share for each thread: the cache's end is often empty, and then the last ones are no work.
      if ((i + s) % shares != params->ith) continue;
      struct place p = {0, i / parts * a->group + i % parts * per, 0};
      const int64_t left = (i / parts + 1) * a->group - p.head, to = (s + 1) * share;
      const int n = (int)(left < per ? left : per);
      if (n < 1) continue;
      attend(a, p, n, s * share, to < a->keys ? to : a->keys, &f);
      for (int h = 0; h < n; h++) {
        if (a->sinks && s == 0) add_sink(a, p.head + h, &f.max[h], &f.sum[h], f.sum_v[h], false);
        float* out = partial + ((p.head + h) * shares + s) * size;
        out[0] = f.max[h];
        out[1] = f.sum[h];
        memcpy(out + 2, f.sum_v[h], a->dv * sizeof(float));
      }
    }
  ggml.barrier(params->threadpool);
  for (int64_t head = params->ith; head < a->heads; head += shares) {
    float max = -INFINITY, sum = 0, *v = f.sum_v[0];
    memset(v, 0, a->dv * sizeof(float));
    for (const float* in = partial + head * shares * size, *end = in + shares * size; in < end; in += size) {
      if (in[1] == 0) continue;
      const float top = in[0] > max ? in[0] : max, old = expf(max - top), new = expf(in[0] - top);
      for (int64_t i = 0; i < a->dv; i += LANES) {
        const __m512 more = _mm512_mul_ps(_mm512_loadu_ps(in + 2 + i), _mm512_set1_ps(new));
        _mm512_storeu_ps(v + i, _mm512_fmadd_ps(_mm512_loadu_ps(v + i), _mm512_set1_ps(old), more));
      }
      sum = __builtin_fmaf(sum, old, in[1] * new);
      max = top;
    }
    store(a, (struct place){0, head, 0}, sum, v);
  }
}

static bool fits(const struct ggml_compute_params* params, const struct attention* a) {
  const struct ggml_tensor *q = a->q, *k = a->k, *v = a->v, *m = a->mask, *d = a->dst;
  float bias, softcap;
  memcpy(&bias, d->op_params + 1, sizeof bias);
  memcpy(&softcap, d->op_params + 2, sizeof softcap);
  const bool plain = !params->use_ref && bias == 0 && softcap == 0;
  const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
                     d->type == GGML_TYPE_F32 && (!m || m->type == GGML_TYPE_F16);
  const bool rows = q->nb[0] == sizeof(float) && k->nb[0] == 2 && v->nb[0] == 2 && d->nb[0] == sizeof(float) &&
                    d->nb[1] == a->dv * sizeof(float) && (!m || m->nb[0] == 2);
  const bool sizes = a->dk % LANES == 0 && a->dv % LANES == 0 && a->dk <= WIDEST && a->dv <= WIDEST &&
                     a->keys < INT32_MAX && q->ne[0] == a->dk && v->ne[1] == a->keys && d->ne[0] == a->dv;
  const bool groups =
      k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && q->ne[2] % k->ne[2] == 0 && q->ne[3] % k->ne[3] == 0;
  return plain && types && rows && sizes && groups && (a->rows < TILED || puna_tiles_fit(params, a));
}

void ggml_compute_forward_flash_attn_ext(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2];
  struct attention a = {
      .q = q,
      .k = k,
      .v = v,
      .mask = dst->src[3],
      .sinks = dst->src[4],
      .dst = dst,
      .dk = k->ne[0],
      .dv = v->ne[0],
      .keys = k->ne[1],
      .rows = q->ne[1],
      .heads = q->ne[2],
      .streams = q->ne[3],
      .group = q->ne[2] / k->ne[2],
  };
  memcpy(&a.scale, dst->op_params, sizeof a.scale);
  if (!puna_avx512 || !fits(params, &a)) {
    ggml.flash_attention(params, dst);
    return;
  }
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  if (a.rows == 1 && a.streams == 1 && a.keys >= SPLIT) {
    split_row(params, &a);
    return;
  }
  if (params->ith == 0) ggml.chunk_set(params->threadpool, params->nth);
  ggml.barrier(params->threadpool);
  a.rows >= tiled&& puna_tiles_fit(params, &a) ? puna_attend_tiles(params, &a) : few_rows(params, &a);
}
