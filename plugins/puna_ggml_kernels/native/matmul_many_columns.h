// What matmul.c and matmul_many_columns.c know of each other.
#pragma once

#include "panel.h"
#include "thread_scratch.h"

enum { MANY_COLUMNS = 24 };  // columns from which packing them pays

// A product with many columns: what all threads agree on.
struct many_columns {
  int type;            // of A
  const uint8_t *a, *b;
  size_t row, column;  // bytes of a row of A and of a column
  int64_t m, n, k;     // rows, columns, and blocks of each
  float* c;
  int64_t ldc;
};

// Returns whether matmul_many_columns.c multiplies matrices of a type.
HIDDEN bool puna_takes_many_columns(int type);
// Computes this thread's share.
HIDDEN void puna_multiply_many_columns(const struct ggml_compute_params* params, const struct many_columns* product,
                                       bool claim);

// Of matmul.c: how many panels a thread takes at a time. Without the counter of chunks (`claim`) it takes one share.
HIDDEN int64_t puna_panels_per_chunk(int64_t panels, int threads, bool claim);

// Returns the panel from row `first` of m.
KERNEL static inline struct panel panel_at(const uint8_t* a, size_t bytes, int64_t first, int64_t m) {
  const int last = m - first >= PANEL_ROWS ? PANEL_ROWS - 1 : (int)(m - first - 1);
  struct panel panel = {.store_mask = (__mmask16)((2u << last) - 1)};
  for (int r = 0; r < PANEL_ROWS; r++) panel.row[r] = a + (size_t)(first + (r < last ? r : last)) * bytes;
  return panel;
}
