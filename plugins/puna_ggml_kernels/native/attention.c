// Attention over a KV cache of 16-bit floats, in the place of ggml_compute_forward_flash_attn_ext. This file has the
// entry and the decode path.
//
// Each result has the bits that ggml's own function gives it on a processor with AVX-512. So the order of each sum,
// the roundings, and the points at which a running maximum is taken are ggml's. The differences change no
// bit: masked positions are passed over a block at a time, exponentials are computed for sixteen positions at once
// with the bits of glibc's expf, and query heads that share keys and values are taken together. A row of the result
// does not depend on the rows computed with it, so rows may be divided among threads in another way than ggml's.
//
// Where ggml's bits are not wanted (puna_exact is false), the order of a row follows from what its token is, and not
// from what is computed beside it. All rows are tiled: tokens of prompts as in ggml, however few a batch has of them
// (puna_set_prompts), and sampled tokens in shares of positions that threads can divide among themselves. Heads shorter
// than FIXED_HEAD keep ggml's orders: toy models have them, from which the recorded answers of Ollama come.
//
// ggml has three orders of additions:
//
// - decode, for fewer than PREFILL_ROWS rows of queries: position by position, the values' sum rounded to 16 bits each
//   time (attention_decode.h);
// - split decode, for a single row and SPLIT_POSITIONS positions or more: the threads share the positions, and their
//   partial results are merged (attend_split_positions);
// - tiled prefill, for PREFILL_ROWS rows or more: tiles of positions with 32-bit sums (attention_tiled.c).
#include <stdatomic.h>

#include "attention_decode.h"
#include "barrier.h"

enum {
  MASK_SEGMENT = 1024,    // positions whose mask is read at a time
  PREFILL_ROWS = 64,      // rows of queries from which ggml tiles attention
  SPLIT_POSITIONS = 512,  // positions from which ggml splits those of a single row
  POSITIONS_MULTIPLE = 256,  // llama.cpp passes a multiple of this many positions
  MAX_SLOTS = 1024,  // sequences of a context that puna_set_prompts knows
  FIXED_HEAD = 64,   // elements of a head of keys from which the order of a row follows from its token
};

static atomic_long calls;
static int64_t tiled_from = PREFILL_ROWS;

// Sets the number of rows from which attention is tiled, at most PREFILL_ROWS. A row's tiled result does not depend on
// the number of rows. So the parts of a long prompt get the bits of the whole, in a fraction of the time. Must not be
// called while a model runs.
void puna_set_tiled_from(int rows) { tiled_from = rows < PREFILL_ROWS ? rows : PREFILL_ROWS; }

// prompts_known: the slots decide the order of attention. prompt_in_slot: the slots, which are streams of the KV cache,
// that evaluate a prompt.
static bool prompts_known, prompt_in_slot[MAX_SLOTS];

// Names the slots that evaluate a prompt in the next batches; all others have sampled tokens. A negative count: the
// number of rows decides, as in ggml. Must not be called while a model runs.
void puna_set_prompts(const int32_t* slots, int count) {
  prompts_known = count >= 0;
  memset(prompt_in_slot, 0, sizeof prompt_in_slot);
  for (int i = 0; i < count; i++)
    if (slots[i] >= 0 && slots[i] < MAX_SLOTS) prompt_in_slot[slots[i]] = true;
}

long puna_attention_calls(void) { return atomic_load(&calls); }

// Lists the positions from..to that are not masked, and their values in the mask. The last position is repeated 2 LANES
// times more, for prefetching. Returns how many there are.
KERNEL static int list_visible(const uint16_t* mask, int64_t from, int64_t to, int32_t* position, float* bias) {
  int count = 0;
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t i = from; i < to; i += LANES) {
    __mmask16 visible = (__mmask16)(to - i < LANES ? (1u << (to - i)) - 1 : 0xffff);
    __m512 value = _mm512_setzero_ps();
    if (mask) {
      const __m256i half = _mm256_maskz_loadu_epi16(visible, mask + i);
      visible = _mm256_mask_cmpneq_epi16_mask(visible, half, _mm256_set1_epi16((short)MASKED));
      if (!visible) continue;
      value = _mm512_cvtph_ps(half);
    }
    const __m512i where = _mm512_add_epi32(lane, _mm512_set1_epi32((int32_t)i));
    _mm512_storeu_si512(position + count, _mm512_maskz_compress_epi32(visible, where));
    _mm512_storeu_ps(bias + count, _mm512_maskz_compress_ps(visible, value));
    count += __builtin_popcount(visible);
  }
  if (count)
    for (int i = 0; i < 2; i++)
      _mm512_storeu_si512(position + count + i * LANES, _mm512_set1_epi32(position[count - 1]));
  return count;
}

// Computes one row of n heads from p on, over the positions from..to.
KERNEL static void attend_row(const struct attention* a, struct query_index p, int n, int64_t from, int64_t to,
                              struct decode_state* state) {
  void (*const for_heads[HEADS_AT_ONCE])(const struct attention*, struct decode_state*,
                                         const struct visible_positions*) = {attend_positions1, attend_positions2,
                                                                             attend_positions3, attend_positions4};
  // Room beyond the segment: stores write whole registers, and list_visible repeats the last position for prefetching.
  int32_t position[MASK_SEGMENT + 3 * LANES];
  float bias[MASK_SEGMENT + LANES];
  struct visible_positions visible = {
      .k = first_position(a, a->k, p), .v = first_position(a, a->v, p), .position = position, .bias = bias};
  const uint16_t* mask = mask_row(a, p);
  for (int h = 0; h < n; h++) {
    const float* q = query(a, (struct query_index){p.stream, p.head + h, p.row});
    for (int64_t i = 0; i < a->dk; i += LANES) _mm512_store_ps(state->q[h] + i, round_to_half(_mm512_loadu_ps(q + i)));
    memset(state->sum_v[h], 0, a->dv * sizeof(float));
    state->max[h] = -INFINITY;
  }
  memset(state->sum, 0, sizeof state->sum);
  for (int64_t i = from; i < to; i += MASK_SEGMENT) {
    visible.count = list_visible(mask, i, to - i < MASK_SEGMENT ? to : i + MASK_SEGMENT, position, bias);
    if (visible.count) for_heads[n - 1](a, state, &visible);
  }
  for (int h = 0; h < n; h++) {
    state->sum[h] *= 1 / WEIGHT_SCALE;
    for (float* v = state->sum_v[h]; v < state->sum_v[h] + a->dv; v += LANES)
      _mm512_store_ps(v, _mm512_mul_ps(_mm512_load_ps(v), _mm512_set1_ps(1 / WEIGHT_SCALE)));
  }
}

KERNEL static void attend_decode(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t groups = a->heads / a->group, rows = a->rows * a->streams;
  const int64_t parts = split_heads(a, HEADS_AT_ONCE, groups * rows, params->nth), per = (a->group + parts - 1) / parts;
  struct decode_state state;
  for (int64_t i = params->ith; i < rows * groups * parts; i = next_piece(params, i)) {
    const int64_t group = i / parts % groups, row = i / parts / groups;
    struct query_index p = {row / a->rows, group * a->group + i % parts * per, row % a->rows};
    const int64_t left = (group + 1) * a->group - p.head;
    const int n = (int)(left < per ? left : per);
    if (n < 1) continue;
    attend_row(a, p, n, 0, a->keys, &state);
    for (int h = 0; h < n; h++, p.head++) {
      if (a->sinks) add_sink(a, p.head, &state.max[h], &state.sum[h], state.sum_v[h], false);
      store_normalized(a, p, state.sum[h], state.sum_v[h]);
    }
  }
}

// Split decode: the threads compute shares of the positions, and then the partial results are merged.
KERNEL static void attend_split_positions(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t shares = params->nth, share = (a->keys + shares - 1) / shares, size = 2 + a->dv;
  const int64_t groups = a->heads / a->group, parts = split_heads(a, HEADS_AT_ONCE, groups * shares, 1);
  const int64_t per = (a->group + parts - 1) / parts;
  float* partial = params->wdata;
  struct decode_state state;
  for (int64_t i = 0; i < groups * parts; i++)
    for (int64_t s = 0; s < shares; s++) {
      // A thread does not take the same share of every head. The end of the cache is often empty, so that the last
      // shares are no work.
      if ((i + s) % params->nth != params->ith) continue;
      struct query_index p = {0, i / parts * a->group + i % parts * per, 0};
      const int64_t left = (i / parts + 1) * a->group - p.head, to = (s + 1) * share;
      const int n = (int)(left < per ? left : per);
      if (n < 1) continue;
      attend_row(a, p, n, s * share, to < a->keys ? to : a->keys, &state);
      for (int h = 0; h < n; h++) {
        if (a->sinks && s == 0) add_sink(a, p.head + h, &state.max[h], &state.sum[h], state.sum_v[h], false);
        float* out = partial + ((p.head + h) * shares + s) * size;
        out[0] = state.max[h];
        out[1] = state.sum[h];
        memcpy(out + 2, state.sum_v[h], a->dv * sizeof(float));
      }
    }
  puna_meet_all(params->threadpool);
  for (int64_t head = params->ith; head < a->heads; head += params->nth) {
    const float *in = partial + head * shares * size, *end = in + shares * size;
    float max = -INFINITY, sum = 0, *v = state.sum_v[0];
    memset(v, 0, a->dv * sizeof(float));
    for (; in < end; in += size) merge(&max, &sum, v, in[0], in[1], in + 2, a->dv);
    store_normalized(a, (struct query_index){0, head, 0}, sum, v);
  }
}

static bool supported(const struct ggml_compute_params* params, const struct attention* a) {
  const struct ggml_tensor *q = a->q, *k = a->k, *v = a->v, *m = a->mask, *d = a->dst;
  float bias, softcap;
  memcpy(&bias, d->op_params + 1, sizeof bias);
  memcpy(&softcap, d->op_params + 2, sizeof softcap);
  // ALiBi (bias) and soft-capped scores (softcap) are left to ggml.
  const bool plain = !params->use_ref && bias == 0 && softcap == 0;
  const bool types = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
                     d->type == GGML_TYPE_F32 && (!m || m->type == GGML_TYPE_F16);
  const bool rows = q->nb[0] == sizeof(float) && k->nb[0] == 2 && v->nb[0] == 2 && d->nb[0] == sizeof(float) &&
                    d->nb[1] == a->dv * sizeof(float) && (!m || m->nb[0] == 2);
  const bool sizes = a->dk % LANES == 0 && a->dv % LANES == 0 && a->dk <= MAX_HEAD_SIZE && a->dv <= MAX_HEAD_SIZE &&
                     a->keys < INT32_MAX && q->ne[0] == a->dk && v->ne[1] == a->keys && d->ne[0] == a->dv;
  const bool groups =
      k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] && q->ne[2] % k->ne[2] == 0 && q->ne[3] % k->ne[3] == 0;
  // A large batch without room for a tile cannot take the decode path instead, whose bits are not those that ggml
  // gives.
  return plain && types && rows && sizes && groups && (a->rows < PREFILL_ROWS || puna_tiles_fit(params, a));
}

// Returns the number of positions that llama.cpp would pass if this row were the last one.
static int64_t own_positions(const struct ggml_tensor* mask, int64_t row, int64_t keys) {
  const uint16_t* visible = (const uint16_t*)tensor_row(mask, row, 0, 0);
  int64_t count = keys;
  while (count > 0 && visible[count - 1] == MASKED) count--;
  count = (count + POSITIONS_MULTIPLE - 1) / POSITIONS_MULTIPLE * POSITIONS_MULTIPLE;
  return count < keys ? count : keys;
}

void ggml_compute_forward_flash_attn_ext(const struct ggml_compute_params* params, struct ggml_tensor* dst);

// Computes the rows of a sequence one after the other, each as the only row. So a draft token gets the bits that it
// has in a step of its own, where the threads share the positions, in parts that depend on their number.
static void attend_each_row(const struct ggml_compute_params* params, const struct ggml_tensor* dst) {
  for (int64_t row = 0; row < dst->src[0]->ne[1]; row++) {
    struct ggml_tensor out = *dst, q = *dst->src[0], k = *dst->src[1], v = *dst->src[2], mask;
    k.ne[1] = v.ne[1] = own_positions(dst->src[3], row, k.ne[1]);
    q.data = (char*)q.data + (size_t)row * q.nb[1];
    out.data = (char*)out.data + (size_t)row * out.nb[2];
    mask = *dst->src[3];
    mask.data = (char*)mask.data + (size_t)row * mask.nb[1];
    mask.ne[0] = k.ne[1], mask.ne[1] = 1;
    q.ne[1] = out.ne[2] = 1;
    out.src[0] = &q, out.src[1] = &k, out.src[2] = &v, out.src[3] = &mask;
    // The next row overwrites the partial results that other threads may still read.
    if (row) puna_meet_all(params->threadpool);
    ggml_compute_forward_flash_attn_ext(params, &out);
  }
}

static struct attention attention_of(struct ggml_tensor* dst) {
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
  return a;
}

struct part {  // of an attention: the tokens of one sequence, in heads that share keys and values
  struct ggml_tensor dst, q, k, v, mask, sinks;
};

// Selects `rows` tokens from `first` on, and group `group` of the heads, or all heads if it is negative.
static void select_part(const struct attention* a, int64_t first, int64_t rows, int64_t group, struct part* p) {
  p->dst = *a->dst, p->q = *a->q, p->k = *a->k, p->v = *a->v, p->mask = *a->mask;
  const int64_t of_group = group < 0 ? 0 : group, head = of_group * a->group;
  p->q.data = (void*)tensor_row(a->q, first, head, 0);
  p->k.data = (void*)tensor_row(a->k, first, of_group, 0);
  p->v.data = (void*)tensor_row(a->v, first, of_group, 0);
  p->mask.data = (char*)tensor_row(a->mask, first, 0, 0) + first * (int64_t)a->mask->nb[0];
  p->dst.data = (char*)a->dst->data + (first * a->dst->ne[1] + head) * (int64_t)a->dst->nb[1];
  p->q.ne[1] = p->k.ne[1] = p->v.ne[1] = p->mask.ne[0] = p->mask.ne[1] = p->dst.ne[2] = rows;
  if (group >= 0) p->q.ne[2] = a->group, p->k.ne[2] = p->v.ne[2] = 1;
  p->dst.src[0] = &p->q, p->dst.src[1] = &p->k, p->dst.src[2] = &p->v, p->dst.src[3] = &p->mask;
  if (a->sinks) {
    p->sinks = *a->sinks;
    p->sinks.data = (float*)a->sinks->data + head;
    p->dst.src[4] = &p->sinks;
  }
}

// Returns whether the rows and the first positions are the tokens of puna_sequences, and each sees its own sequence
// alone. The mask tells it at the ends of each sequence.
static bool divided_by_sequence(const struct attention* a) {
  if (puna_sequences.count < 2 || !a->mask || a->streams != 1 || a->rows != puna_sequences.tokens) return false;
  if (a->keys < a->rows || a->mask->ne[2] != 1 || a->mask->ne[3] != 1 || a->mask->type != GGML_TYPE_F16) return false;
  for (int64_t s = 0, first = 0; s < puna_sequences.count; first += puna_sequences.length[s++]) {
    const int64_t end = first + puna_sequences.length[s], last = end - 1;
    const uint16_t *top = (const uint16_t*)tensor_row(a->mask, first, 0, 0),
                   *bottom = (const uint16_t*)tensor_row(a->mask, last, 0, 0);
    if (top[first] == MASKED || bottom[last] == MASKED) return false;
    if (first && (top[first - 1] != MASKED || bottom[first - 1] != MASKED)) return false;
    if (end < a->keys && (top[end] != MASKED || bottom[end] != MASKED)) return false;
  }
  return true;
}

// Computes each sequence as in a batch of its own: its length decides whether it is tiled, and tiles begin with it. A
// piece of work is a group of heads of a sequence, which one thread computes alone.
static void attend_sequences(const struct ggml_compute_params* params, const struct attention* a) {
  const int64_t groups = a->heads / a->group;
  const size_t each = params->wsize / params->nth / 64 * 64;
  const struct ggml_compute_params alone = {
      .nth = 1, .wsize = each, .wdata = (char*)params->wdata + (size_t)params->ith * each};
  for (int64_t i = params->ith; i < groups * puna_sequences.count; i = next_piece(params, i)) {
    struct part part;
    int64_t first = 0;
    for (int s = 0; s < i / groups; s++) first += puna_sequences.length[s];
    select_part(a, first, puna_sequences.length[i / groups], i % groups, &part);
    const struct attention own = attention_of(&part.dst);
    own.rows >= PREFILL_ROWS ? puna_attend_tiles(&alone, &own) : attend_decode(&alone, &own);
  }
}

// The same with ggml's own function, which all threads run together.
static void attend_sequences_by_ggml(const struct ggml_compute_params* params, const struct attention* a) {
  for (int64_t s = 0, first = 0; s < puna_sequences.count; first += puna_sequences.length[s++]) {
    struct part part;
    select_part(a, first, puna_sequences.length[s], -1, &part);
    if (s) puna_meet_all(params->threadpool);
    ggml.flash_attention(params, &part.dst);
  }
}

// Finds out for each stream if it evaluates a prompt. False if the keys do not lie in the KV cache, or the slots are not
// known.
static bool find_prompts(const struct ggml_compute_params* params, struct attention* a) {
  // The keys are a view of the cache, whose streams lie one after the other.
  const struct ggml_tensor* cache = a->k->view_src;
  if (!cache || !a->mask || a->k->ne[3] != a->streams || !puna_tiles_fit(params, a)) return false;
  const size_t offset = (size_t)((const char*)a->k->data - (const char*)cache->data), first = offset / a->k->nb[3];
  if (offset % a->k->nb[3] || first + (size_t)a->streams > MAX_SLOTS) return false;
  a->prompts = prompt_in_slot + first;
  return true;
}

// Has the threads claim pieces of work, from the first one on. Each thread starts with the piece of its own index, so
// the counter starts behind these. The barrier keeps a fast thread from claiming before the counter is set.
static void begin_pieces(const struct ggml_compute_params* params) {
  if (params->ith == 0) ggml.chunk_set(params->threadpool, params->nth);
  puna_meet_all(params->threadpool);
}

// Computes each row in the order of a prompt or in that of a sampled token, whatever else is in the batch.
static void attend_fixed(const struct ggml_compute_params* params, const struct attention* a) {
  const bool single = a->rows == 1 && a->streams == 1 && !a->prompts[0];
  if (single && params->nth > 1 && a->keys >= SPLIT_POSITIONS && puna_attend_split_tiles(params, a)) return;
  begin_pieces(params);
  puna_attend_tiles(params, a);
}

void ggml_compute_forward_flash_attn_ext(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  struct attention a = attention_of(dst);
  // Image encoders have no mask. They may run beside the batch for which the order was set, and keep ggml's.
  const int invariant = a.mask ? puna_batch_invariant : 0;
  const bool fixes = puna_avx512 && !puna_exact && prompts_known && a.dk >= FIXED_HEAD;
  const bool fixed = fixes && supported(params, &a) && find_prompts(params, &a);
  if (puna_avx512 && !fixed && invariant == 1 && a.streams == 1 && a.rows > 1 && a.keys >= SPLIT_POSITIONS) {
    attend_each_row(params, dst);
    return;
  }
  const bool divided = puna_avx512 && divided_by_sequence(&a);
  if (!puna_avx512 || !supported(params, &a)) {
    divided ? attend_sequences_by_ggml(params, &a) : ggml.flash_attention(params, dst);
    return;
  }
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  if (fixed) {
    attend_fixed(params, &a);
    return;
  }
  const bool tiles = a.rows >= (a.mask ? tiled_from : PREFILL_ROWS) && puna_tiles_fit(params, &a);
  // Beside other sequences no row is the only one. llama.cpp evaluates the longest draft's last tokens by themselves.
  if (!tiles && a.rows == 1 && a.streams == 1 && a.keys >= SPLIT_POSITIONS && invariant < 2) {
    attend_split_positions(params, &a);
    return;
  }
  begin_pieces(params);
  if (divided)
    attend_sequences(params, &a);
  else
    tiles ? puna_attend_tiles(params, &a) : attend_decode(params, &a);
}
