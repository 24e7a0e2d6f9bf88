// What of ggml's inside the kernels touch, as of the versions named in kernels.py. Mirrors ggml.h and ggml-cpu-impl.h.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ggml_type {
  GGML_TYPE_F32 = 0,
  GGML_TYPE_F16 = 1,
  GGML_TYPE_Q4_0 = 2,
  GGML_TYPE_Q5_0 = 6,
  GGML_TYPE_Q8_0 = 8,
  GGML_TYPE_Q4_K = 12,
  GGML_TYPE_Q5_K = 13,
  GGML_TYPE_Q6_K = 14,
  GGML_TYPE_Q8_K = 15,
};

struct ggml_threadpool;

// One thread's share in the evaluation of one node of a graph.
struct ggml_compute_params {
  int ith, nth;  // this thread, and how many there are
  size_t wsize;  // bytes at wdata, common to all threads
  void* wdata;
  struct ggml_threadpool* threadpool;
  bool use_ref;
};

struct ggml_tensor {
  enum ggml_type type;
  void* buffer;
  int64_t ne[4];  // elements
  size_t nb[4];   // strides in bytes
  int op;
  int32_t op_params[16];
  int32_t flags;
  struct ggml_tensor* src[10];
  struct ggml_tensor* view_src;
  size_t view_offs;
  void* data;
  char name[64];
  void* extra;
  char padding[8];
};

// llamafile_sgemm of llamafile/sgemm.h: C = A' B for m rows of A and n of B, each of k blocks; lda, ldb in blocks, ldc
// in floats.
typedef bool (*sgemm_fn)(const struct ggml_compute_params*, int64_t m, int64_t n, int64_t k, const void* A, int64_t lda,
                         const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype, int Ctype);
typedef void (*quantize_fn)(const float* x, void* y, int64_t k);  // k values
typedef void (*forward_fn)(const struct ggml_compute_params*, struct ggml_tensor* dst);

// ggml's own functions, found by kernels.py.
struct ggml_functions {
  sgemm_fn sgemm;
  forward_fn flash_attention;
  bool (*mul_mat_tiled)(const struct ggml_compute_params*, struct ggml_tensor* dst);
  int (*chunk_add)(struct ggml_threadpool*, int);
  void (*chunk_set)(struct ggml_threadpool*, int);
  void (*barrier)(struct ggml_threadpool*);
  quantize_fn quantize_row_q8_0, quantize_row_q8_K;
  void (*rms_norm_mul)(const struct ggml_compute_params*, struct ggml_tensor* norm, struct ggml_tensor* dst);
};

// The library's names are for all to see, but for these.
#define HIDDEN __attribute__((visibility("hidden")))
extern HIDDEN struct ggml_functions ggml;  // all NULL until kernels.py has found them
extern HIDDEN bool puna_avx512;            // whether the kernels are on
