// The tiled path of attention (attention.c has the other paths): a tile of TILE_POSITIONS positions at a time, with
// 32-bit sums. By it ggml computes prompts, and the kernels sampled tokens as well where ggml's bits are not wanted.
//
// For each row of queries ggml takes a tile's scores by a matrix product, finds their maximum, rescales the sums,
// turns the scores into weights, and adds weights times values by a second matrix product. Sums run over the elements
// of a key, and over positions, in ascending order; sums of weights over sixteen lanes and then in double precision.
// The kernel does the same for each element, so the bits are ggml's. The gain comes from sharing and skipping: a tile's
// keys are transposed once for all heads that share them, and for as many rows as there is scratch memory for; and of a
// tile only the positions between the first and the last that some row sees are computed, since the others would add
// zero. attention_tile.h has the products.
//
// A sampled token sees a long context alone, and several threads have to divide it. So its positions are taken in
// shares of SHARE_POSITIONS, whose sums are merged one after the other, on one thread too.
#include "attention_tile.h"
#include "barrier.h"

enum {
  SHARE_POSITIONS = 256,  // positions of a share of a sampled token's row, a multiple of TILE_POSITIONS
  FEW_ROWS = 16,
  MAX_ROWS_PER_TILE = 96,  // rows of one head that use a tile once its keys are transposed, at most
};

// Returns exp(x) with the polynomial of ggml's own vector exponential, for x <= 0 or NaN.
INLINE __m512 exp_tiled(__m512 x) {
  const __m512 shift = _mm512_set1_ps(0x1.8p23f);
  const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), shift), shift);
  const __m512 most = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
  const __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), most), r2 = _mm512_mul_ps(r, r);
  const __m512 high = _mm512_fmadd_ps(_mm512_set1_ps(0x1.0e4020p-7f), r, _mm512_set1_ps(0x1.573e2ep-5f));
  const __m512 mid = _mm512_fmadd_ps(_mm512_set1_ps(0x1.555e66p-3f), r, _mm512_set1_ps(0x1.fffdb6p-2f));
  const __m512 low = _mm512_fmadd_ps(_mm512_set1_ps(0x1.ffffecp-1f), r, _mm512_set1_ps(1));
  const __m512 y = _mm512_fmadd_ps(_mm512_fmadd_ps(high, r2, mid), r2, low);
  const __mmask16 nothing = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-192), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(_mm512_scalef_ps(y, n), nothing, _mm512_setzero_ps());
}

struct query_rows {  // up to QUERY_ROWS rows of heads that share keys and values
  int rows;
  const float* q[QUERY_ROWS];
  const uint16_t* mask[QUERY_ROWS];
  float *sum_v, *sum, *max;
};

static uint64_t low_bits(int64_t n) { return n < TILE_POSITIONS ? (UINT64_C(1) << n) - 1 : UINT64_MAX; }

// Returns the positions of the tile that a row's mask leaves visible, as bits.
INLINE uint64_t visible(const uint16_t* mask, const struct tile* t) {
  uint64_t bits = low_bits(t->count);
  if (!mask) return bits;
  const __m512i none = _mm512_set1_epi16((short)MASKED);
  const __m512i low = _mm512_maskz_loadu_epi16((__mmask32)bits, mask + t->from);
  const __m512i high = _mm512_maskz_loadu_epi16((__mmask32)(bits >> 32), mask + t->from + 32);
  return bits & (_mm512_cmpneq_epi16_mask(low, none) | (uint64_t)_mm512_cmpneq_epi16_mask(high, none) << 32);
}

// Turns dot products into weights, for the positions from..to, both multiples of LANES.
INLINE void softmax_row(const struct attention* a, const struct query_rows* m, int r, const struct tile* t, int from,
                        int to, float* x) {
  const __m512 none = _mm512_set1_ps(-INFINITY);
  __m512 top = none;
  for (int j = from; j < to; j += LANES) {
    const __mmask16 there = (__mmask16)(low_bits(t->count) >> j);
    __m512 score = _mm512_mul_ps(_mm512_load_ps(x + j), _mm512_set1_ps(a->scale));
    if (m->mask[r])
      score = _mm512_add_ps(score, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, m->mask[r] + t->from + j)));
    score = _mm512_mask_mov_ps(none, there, score);
    top = _mm512_max_ps(top, score);
    _mm512_store_ps(x + j, score);
  }
  const float max = _mm512_reduce_max_ps(top);
  // The row sees none of these positions. Its weights are 0, for which the exponential would give NaN.
  if (max == -INFINITY) {
    for (int j = from; j < to; j += LANES) _mm512_store_ps(x + j, _mm512_setzero_ps());
    return;
  }
  if (max > m->max[r]) {
    const float rescale = expf(m->max[r] - max);
    float* v = m->sum_v + r * a->dv;
    for (int64_t i = 0; i < a->dv; i += LANES)
      _mm512_store_ps(v + i, _mm512_mul_ps(_mm512_load_ps(v + i), _mm512_set1_ps(rescale)));
    m->sum[r] *= rescale;
    m->max[r] = max;
  }
  double sum = 0;
  for (int j = from; j < to; j += LANES) {
    const __m512 e = exp_tiled(_mm512_sub_ps(_mm512_load_ps(x + j), _mm512_set1_ps(m->max[r])));
    _mm512_store_ps(x + j, e);
    sum += (double)_mm512_reduce_add_ps(e);
  }
  m->sum[r] = (float)(m->sum[r] + sum);
}

KERNEL static void attend_tile(const struct attention* a, const struct query_rows* m, struct tile* t) {
  uint64_t any = 0;
  for (int r = 0; r < m->rows; r++) any |= visible(m->mask[r], t);
  if (!any) return;
  // The first rows that use a tile prefetch the keys of the next one.
  const bool prefetch = !t->ready && t->from + t->count < a->keys;
  const char* next = prefetch ? t->keys + TILE_POSITIONS * a->k->nb[1] : NULL;
  // Positions before the first and after the last that some row sees would add nothing.
  const int begin = __builtin_ctzll(any), end = TILE_POSITIONS - __builtin_clzll(any);
  const int from = begin / LANES * LANES, to = (end + LANES - 1) / LANES * LANES;
  if (!t->ready) transpose_tile(a, t, t->shared ? 0 : from, t->shared ? TILE_POSITIONS : to);
  const struct products* of_rows = products_of + m->rows - 1;
  _Alignas(64) float x[QUERY_ROWS * TILE_POSITIONS];
  of_rows->take_scores(a, t, m->q, from, to, x);
  for (int r = 0; r < m->rows; r++) softmax_row(a, m, r, t, from, to, x + r * TILE_POSITIONS);
  of_rows->add_values(a, t, x, begin, end, next, m->sum_v);
}

// Returns row i of the rows of several heads, one head after the other.
static struct query_index nth_row(struct query_index p, int rows, int i) {
  return (struct query_index){p.stream, p.head + i / rows, p.row + i % rows};
}

// Returns the size of a tile in the scratch memory.
static int64_t tile_floats(const struct attention* a) { return TILE_POSITIONS * a->dk / 2; }

struct sums {  // of rows: weights times values, weights, and the largest score
  float *v, *weights, *max;
};

// Returns how many floats the sums of so many rows take, in whole cache lines.
static int64_t sums_floats(const struct attention* a, int64_t rows) {
  return (rows * (a->dv + 2) + LANES - 1) / LANES * LANES;
}

static struct sums sums_at(const struct attention* a, int64_t rows, float* at) {
  return (struct sums){at, at + rows * a->dv, at + rows * (a->dv + 1)};
}

// Computes the sums of `rows` rows from p on, of each of n heads, over the positions from..to. `from` is the first
// position of a tile.
KERNEL static void attend_positions(const struct attention* a, struct query_index p, int n, int rows, int64_t from,
                                    int64_t to, void* block, struct sums s) {
  const int all = n * rows;
  struct tile t = {.block = block, .shared = all > QUERY_ROWS};
  memset(s.v, 0, all * a->dv * sizeof(float));
  memset(s.weights, 0, all * sizeof(float));
  for (int i = 0; i < all; i++) s.max[i] = -INFINITY;
  for (t.from = from; t.from < to; t.from += TILE_POSITIONS) {
    t.count = (int)(to - t.from < TILE_POSITIONS ? to - t.from : TILE_POSITIONS);
    t.keys = first_position(a, a->k, p) + t.from * a->k->nb[1];
    t.values = first_position(a, a->v, p) + t.from * a->v->nb[1];
    t.ready = false;
    struct query_index own = p;
    for (int i = 0; i < all; i += QUERY_ROWS) {
      struct query_rows m = {.sum_v = s.v + i * a->dv, .sum = s.weights + i, .max = s.max + i};
      m.rows = all - i < QUERY_ROWS ? all - i : QUERY_ROWS;
      for (int r = 0; r < m.rows; r++) {
        m.q[r] = query(a, own);
        m.mask[r] = mask_row(a, own);
        if (++own.row == p.row + rows) own.row = p.row, own.head++;
      }
      attend_tile(a, &m, &t);
    }
  }
}

// Tells the rows of sampled tokens, whose positions are divided into shares.
static bool in_shares(const struct attention* a, int64_t stream) { return a->prompts && !a->prompts[stream]; }

// Returns the end of the share that begins at a position.
static int64_t share_end(const struct attention* a, int64_t from) {
  return a->keys - from < SHARE_POSITIONS ? a->keys : from + SHARE_POSITIONS;
}

// Adds the sums of later positions to those of earlier ones, for row i of each.
KERNEL static void merge_sums(const struct attention* a, struct sums s, struct sums later, int64_t i) {
  merge(s.max + i, s.weights + i, s.v + i * a->dv, later.max[i], later.weights[i], later.v + i * a->dv, a->dv);
}

KERNEL static void store_row(const struct attention* a, struct query_index p, struct sums s, int64_t i) {
  if (a->sinks) add_sink(a, p.head, s.max + i, s.weights + i, s.v + i * a->dv, true);
  store_normalized(a, p, s.weights[i], s.v + i * a->dv);
}

// Computes `rows` rows from p on, of each of n heads. The scratch memory holds a tile and the sums of each row, and if
// the rows have shares those of a share as well.
KERNEL static void attend_rows(const struct attention* a, struct query_index p, int n, int rows, float* scratch) {
  const int64_t all = n * rows, first = in_shares(a, p.stream) ? share_end(a, 0) : a->keys;
  float* at = scratch + tile_floats(a);
  const struct sums s = sums_at(a, all, at);
  attend_positions(a, p, n, rows, 0, first, scratch, s);
  for (int64_t from = first; from < a->keys; from += SHARE_POSITIONS) {
    const struct sums later = sums_at(a, all, at + sums_floats(a, all));
    attend_positions(a, p, n, rows, from, share_end(a, from), scratch, later);
    for (int64_t i = 0; i < all; i++) merge_sums(a, s, later, i);
  }
  for (int64_t i = 0; i < all; i++) store_row(a, nth_row(p, rows, (int)i), s, i);
}

// Returns for how many rows the scratch memory of a thread has room beside a tile.
static int64_t scratch_rows(const struct ggml_compute_params* params, const struct attention* a) {
  // In whole cache lines. One line less, since the start is aligned up.
  const int64_t floats = (int64_t)(params->wsize / params->nth / 64 * 16) - 16;
  bool shares = false;
  for (int64_t i = 0; i < a->streams; i++) shares |= in_shares(a, i);
  // Rows that have shares take twice the space. Both sums begin with a cache line.
  return (floats - tile_floats(a) - LANES) / (a->dv + 2) / (shares ? 2 : 1);
}

bool puna_tiles_fit(const struct ggml_compute_params* params, const struct attention* a) {
  return scratch_rows(params, a) >= QUERY_ROWS;
}

void puna_attend_tiles(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t groups = a->heads / a->group, space = scratch_rows(params, a) / QUERY_ROWS * QUERY_ROWS;
  const int64_t items = groups * a->streams * ((a->rows + MAX_ROWS_PER_TILE - 1) / MAX_ROWS_PER_TILE);
  // A few rows take less time than the keys that each piece transposes anew.
  const int64_t wanted = a->rows < FEW_ROWS ? params->nth : 4 * params->nth;
  const int64_t parts = split_heads(a, space / QUERY_ROWS, items, wanted),
                per = (a->group + parts - 1) / parts;
  int64_t block = space / per / QUERY_ROWS * QUERY_ROWS;
  if (block > MAX_ROWS_PER_TILE) block = MAX_ROWS_PER_TILE;
  // Few pieces for many threads: with smaller ones, a thread that is held up delays the others less.
  if (items * parts < 4 * params->nth && block > MAX_ROWS_PER_TILE / 2) block = MAX_ROWS_PER_TILE / 2;
  const int64_t blocks = (a->rows + block - 1) / block, total = blocks * a->streams * groups * parts;
  const size_t each = params->wsize / params->nth / 64 * 64;
  float* scratch = (float*)(((uintptr_t)params->wdata + 63) / 64 * 64 + params->ith * each);
  for (int64_t i = params->ith; i < total; i = next_piece(params, i)) {
    const int64_t part = i % parts, group = i / parts % groups, stream = i / parts / groups % a->streams;
    const int64_t row = (blocks - 1 - i / parts / groups / a->streams) * block;  // the last rows first: they see most
    const struct query_index p = {stream, group * a->group + part * per, row};
    const int64_t left = (group + 1) * a->group - p.head;
    if (left < 1) continue;
    const int rows = (int)(a->rows - row < block ? a->rows - row : block);
    attend_rows(a, p, (int)(left < per ? left : per), rows, scratch);
  }
}

// A single sampled token: the threads compute shares, and then the sums of the shares are merged.
bool puna_attend_split_tiles(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t shares = (a->keys + SHARE_POSITIONS - 1) / SHARE_POSITIONS, per_share = sums_floats(a, a->heads);
  const int64_t per = a->mask->ne[2] > 1 ? 1 : a->group;  // as in split_heads
  float* partial = (float*)(((uintptr_t)params->wdata + 63) / 64 * 64);
  float* block = partial + shares * per_share + params->ith * tile_floats(a);
  if ((size_t)(shares * per_share + params->nth * tile_floats(a)) * sizeof(float) + 64 > params->wsize) return false;
  for (int64_t i = params->ith; i < a->heads / per * shares; i += params->nth) {
    const struct query_index p = {0, i / shares * per, 0};
    const int64_t from = i % shares * SHARE_POSITIONS;
    const struct sums all = sums_at(a, a->heads, partial + i % shares * per_share);
    const struct sums own = {all.v + p.head * a->dv, all.weights + p.head, all.max + p.head};
    attend_positions(a, p, (int)per, 1, from, share_end(a, from), block, own);
  }
  puna_meet_all(params->threadpool);
  const struct sums s = sums_at(a, a->heads, partial);
  for (int64_t head = params->ith; head < a->heads; head += params->nth) {
    for (int64_t i = 1; i < shares; i++) merge_sums(a, s, sums_at(a, a->heads, partial + i * per_share), head);
    store_row(a, (struct query_index){0, head, 0}, s, head);
  }
  return true;
}
