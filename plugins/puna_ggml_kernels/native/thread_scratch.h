// Memory of a thread, which it keeps: each buffer grows to the most that was asked of it.
#pragma once

#include <stdlib.h>

#include "avx512.h"
#include "ggml_abi.h"

struct thread_buffer {
  size_t bytes;
  void* at;
};

// Returns at least so many bytes. All threads must agree on the division of work, so a thread without memory cannot give
// up alone: it aborts.
static inline void* thread_room(struct thread_buffer* b, size_t bytes) {
  if (b->bytes < bytes) {
    free(b->at);
    b->bytes = (bytes + LINE - 1) / LINE * LINE;
    b->at = aligned_alloc(LINE, b->bytes);
    if (!b->at) abort();
  }
  return b->at;
}

// Of matmul.c: the calling thread's buffer for the columns of its products.
HIDDEN void* puna_thread_scratch(size_t bytes);
