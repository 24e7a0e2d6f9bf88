#pragma once

#include "avx512.h"
#include "ggml_abi.h"

// A thread's way through the weights of a graph, in the order in which it multiplies them. Memory works all the time if
// the next weights are prefetched while the thread computes something else, or waits.
struct weight_stream {
  const uint8_t *next, *end;  // what is to be prefetched of the thread's share of a matrix
  const struct plan* plan;
  int matrix;       // the index of that matrix
  int ith, nth;     // this thread, of how many
  int64_t ahead;    // bytes that were prefetched and not yet multiplied
};

// Goes on to the thread's share of the next matrix.
HIDDEN void puna_next_share(struct weight_stream* s);

enum {
  LEAST_AHEAD = 32 << 10,  // bytes ahead from which a line is prefetched for each line that is multiplied; below, two
  MOST_AHEAD = 256 << 10,  // bytes that are prefetched at most before they are used: a part of the second-level cache
};

INLINE void prefetch_weights(struct weight_stream* s, int lines) {
  if (s->ahead > MOST_AHEAD || !s->next) return;
  if (s->ahead < LEAST_AHEAD) lines *= 2;
  for (int i = 0; i < lines; i++) _mm_prefetch((const void*)(s->next + i * LINE), _MM_HINT_T1);
  s->next += lines * LINE;
  s->ahead += lines * LINE;
  if (s->next < s->end) return;
  s->ahead -= s->next - s->end;
  puna_next_share(s);
}
