// What the parts of the decode path share: one token of one sequence, for which a graph is planned (decode.c).
#pragma once

#include "panel.h"

// Products with one column (matmul.c): the type and the block size of the column for a matrix, or false if there is none;
// and this thread's rows of a product.
HIDDEN bool puna_column_type(int type, int64_t rows, int* column);
HIDDEN void puna_multiply_column(const struct ggml_tensor* a, const void* column, float* c, int64_t first, int64_t end,
                                 struct weight_stream* stream);
// The norm of one row of a planned graph, for which norm.c asks first. False: it is no part of a plan.
HIDDEN bool puna_planned_norm(const struct ggml_compute_params* params, const struct ggml_tensor* norm,
                              struct ggml_tensor* dst);
HIDDEN float puna_norm_scale(const float* x, int64_t n, float eps, struct weight_stream* stream);
HIDDEN void puna_norm_row(const float* x, float scale, const float* weights, int64_t n, float* y);
