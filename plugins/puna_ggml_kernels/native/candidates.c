// The tokens among which a sampler chooses: those with the largest logits.
//
// A sampler that keeps the k largest logits of a vocabulary needs no other ones. A lower bound for them: the vocabulary
// is divided into groups, and the bound is the k-th largest of the groups' maxima. At least k tokens reach it. The first
// pass finds the maxima, the second one the tokens that reach the bound, in ascending order.
//
// This runs between two batches, when all threads wait and the caches hold the model's weights. So it touches little
// memory besides the logits.
#include <string.h>

#include "avx512.h"
#include "llama_abi.h"
#include "thread_scratch.h"

enum { FLOATS = 16 };

// Returns the integer that compares with others as the floats do.
static int32_t key_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & INT32_MAX);
}

static float float_of(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & INT32_MAX);
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

KERNEL static int count_from(const int32_t* keys, int n, int32_t least) {
  int count = 0;
  for (int i = 0; i < n; i++) count += keys[i] >= least;
  return count;
}

// Returns the k-th largest of n keys.
KERNEL static int32_t largest(const int32_t* keys, int n, int k) {
  // Bit by bit from the top: the largest number that k keys reach.
  int32_t found = count_from(keys, n, 0) >= k ? 0 : INT32_MIN;
  for (int32_t bit = 1 << 30; bit; bit >>= 1)
    if (count_from(keys, n, found + bit) >= k) found += bit;
  return found;
}

// Groups are strided, so that their maxima are those of whole rows.
KERNEL static void find_maxima(const float* logits, int rows, int groups, float* maxima) {
  memcpy(maxima, logits, (size_t)groups * sizeof *maxima);
  for (int row = 1; row < rows; row++) {
    const float* x = logits + (size_t)row * (size_t)groups;
    int g = 0;
    for (; g + FLOATS <= groups; g += FLOATS)
      _mm512_storeu_ps(maxima + g, _mm512_max_ps(_mm512_loadu_ps(x + g), _mm512_loadu_ps(maxima + g)));
    for (; g < groups; g++) maxima[g] = x[g] > maxima[g] ? x[g] : maxima[g];
  }
}

// Writes the tokens with the k largest logits and all equal to them, and some others, in ascending order. Groups have
// `rows` logits. Returns how many there are: 0 if they are fewer than k, because of NaNs, or do not fit into `room`.
KERNEL int puna_top_candidates(const float* logits, int size, int k, int rows, struct llama_token_data* out, int room) {
  const int groups = size / rows;
  if (k < 1 || groups < k) return 0;
  float* maxima = puna_thread_scratch((size_t)groups * (sizeof(float) + sizeof(int32_t)));
  int32_t* keys = (int32_t*)(maxima + groups);
  find_maxima(logits, rows, groups, maxima);
  for (int g = 0; g < groups; g++) keys[g] = key_of(maxima[g]);
  const float bound = float_of(largest(keys, groups, k));
  const __m512 least = _mm512_set1_ps(bound);
  int found = 0;
  for (int i = 0; i < size; i += FLOATS) {
    const __mmask16 there = (__mmask16)(size - i < FLOATS ? (1u << (size - i)) - 1 : 0xffff);
    unsigned reach = _mm512_mask_cmp_ps_mask(there, _mm512_maskz_loadu_ps(there, logits + i), least, _CMP_GE_OQ);
    for (; reach; reach &= reach - 1) {
      const int token = i + __builtin_ctz(reach);
      if (found == room) return 0;
      out[found++] = (struct llama_token_data){token, logits[token], 0};
    }
  }
  return found < k ? 0 : found;
}
