// Batches of several sequences in which each gets the bits that it has in a batch of its own.
//
// Texts to embed are evaluated together, since small batches go through all weights for a few tokens. A vector must not
// depend on the texts beside it, but ggml's order of additions depends on the size of the batch in three places:
//
// - attention, which is tiled from a number of rows on, in tiles that begin with the batch (attention.c);
// - products of types whose order depends on the number of columns, by default only those that no kernel here computes:
//   they are computed for each sequence by itself;
// - pooling: the mean is a product whose sum runs over all tokens of the batch. Here it runs over those of the sequence
//   alone. Layers behind the pooling have a column for each sequence, which is computed as the only one.
//
// Everything else in a layer is computed token by token.
#include "barrier.h"
#include "ggml_abi.h"

struct batch_sequences puna_sequences;

// True while this thread computes a part of a product. A part may have as many columns as there are sequences.
static _Thread_local bool in_part;

// Sets the lengths of the sequences of the next batches. 0 sequences: a batch is computed as a whole. Must not be
// called while a model runs.
void puna_set_sequences(const int32_t* lengths, int count) {
  puna_sequences.count = count <= MAX_SEQUENCES ? count : 0;
  puna_sequences.tokens = 0;
  for (int i = 0; i < puna_sequences.count; i++)
    puna_sequences.tokens += puna_sequences.length[i] = lengths[i];
}

// Returns whether a product has other bits with another number of columns.
static bool depends_on_columns(int type) {
  switch (type) {
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_MXFP4:
      return false;
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ4_XS:
      return puna_exact;
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
      // With puna_exact, and in short rows, a single column is multiplied by dot products, and several in tiles.
      for (int i = 0; i < puna_sequences.count; i++)
        if (puna_sequences.length[i] == 1) return true;
      return false;
    default:
      return true;
  }
}

// A product with some of the columns, and with a part of the elements of each: those from..to.
static void multiply_part(const struct ggml_compute_params* params, const struct ggml_tensor* dst, int64_t first,
                          int64_t columns, int64_t from, int64_t to) {
  struct ggml_tensor out = *dst, a = *dst->src[0], b = *dst->src[1];
  a.ne[0] = b.ne[0] = to - from;
  a.data = (char*)a.data + from * (int64_t)a.nb[0];
  b.data = (char*)b.data + first * (int64_t)b.nb[1] + from * (int64_t)b.nb[0];
  out.data = (char*)out.data + first * (int64_t)out.nb[1];
  b.ne[1] = out.ne[1] = columns;
  b.nb[2] = b.nb[3] = (size_t)columns * b.nb[1];
  out.nb[2] = out.nb[3] = (size_t)columns * out.nb[1];
  out.src[0] = &a, out.src[1] = &b;
  // All threads share the converted columns and the counter of chunks of the part before.
  if (first) puna_meet_all(params->threadpool);
  in_part = true;
  ggml.mul_mat(params, &out);
  in_part = false;
}

// Returns whether a column is the same number for the elements from..to and zero elsewhere: the weights of a mean.
static bool is_mean(const struct ggml_tensor* b, int64_t column, int64_t from, int64_t to) {
  const float* x = (const float*)((const char*)b->data + column * (int64_t)b->nb[1]);
  for (int64_t i = 0; i < b->ne[0]; i++)
    if (x[i] != (from <= i && i < to ? x[from] : 0)) return false;
  return x[from] != 0;
}

static bool are_means(const struct ggml_tensor* a, const struct ggml_tensor* b) {
  if (a->type != GGML_TYPE_F32 || a->ne[0] != puna_sequences.tokens) return false;
  for (int64_t s = 0, first = 0; s < puna_sequences.count; first += puna_sequences.length[s++])
    if (!is_mean(b, s, first, first + puna_sequences.length[s])) return false;
  return true;
}

bool puna_multiply_sequences(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct ggml_tensor *a = dst->src[0], *b = dst->src[1];
  const bool plain = b->type == GGML_TYPE_F32 && b->nb[0] == sizeof(float) && b->ne[2] == 1 && b->ne[3] == 1 &&
                     a->ne[2] == 1 && a->ne[3] == 1;
  if (puna_sequences.count < 2 || in_part || !plain) return false;
  const bool pooled = b->ne[1] == puna_sequences.count;
  if (!pooled && (b->ne[1] != puna_sequences.tokens || !depends_on_columns((int)a->type))) return false;
  const bool means = pooled && are_means(a, b);
  for (int64_t s = 0, first = 0; s < puna_sequences.count; first += puna_sequences.length[s++]) {
    const int64_t length = puna_sequences.length[s];
    if (means)
      multiply_part(params, dst, s, 1, first, first + length);
    else
      multiply_part(params, dst, pooled ? s : first, pooled ? 1 : length, 0, b->ne[0]);
  }
  return true;
}
