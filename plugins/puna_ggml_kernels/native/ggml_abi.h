// The part of ggml's internal interface that the kernels touch: two structs, and the functions that they replace or
// call.
//
// It mirrors ggml.h and ggml-cpu-impl.h for the versions of ggml that loader.py names, so that the kernels compile
// without ggml's sources. tests/plugins/ggml_kernels/abi.c compares the mirror with the headers that llama-cpp-python
// installs.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ggml_type {
  GGML_TYPE_F32 = 0,
  GGML_TYPE_F16 = 1,
  GGML_TYPE_Q4_0 = 2,
  GGML_TYPE_Q4_1 = 3,
  GGML_TYPE_Q5_0 = 6,
  GGML_TYPE_Q5_1 = 7,
  GGML_TYPE_Q8_0 = 8,
  GGML_TYPE_Q8_1 = 9,
  GGML_TYPE_Q2_K = 10,
  GGML_TYPE_Q3_K = 11,
  GGML_TYPE_Q4_K = 12,
  GGML_TYPE_Q5_K = 13,
  GGML_TYPE_Q6_K = 14,
  GGML_TYPE_Q8_K = 15,
  GGML_TYPE_IQ4_NL = 20,
  GGML_TYPE_IQ4_XS = 23,
  GGML_TYPE_BF16 = 30,
  GGML_TYPE_MXFP4 = 39,
};

struct ggml_threadpool;

// The parameters with which one thread computes its share of one node of a graph.
struct ggml_compute_params {
  int ith, nth;  // the index of this thread, and the number of threads
  size_t wsize;  // bytes at wdata, which all threads share
  void* wdata;
  struct ggml_threadpool* threadpool;
  bool use_ref;
};

struct ggml_tensor {
  enum ggml_type type;
  void* buffer;
  int64_t ne[4];  // number of elements
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

// llamafile_sgemm of llamafile/sgemm.h. It computes C = A' B for m rows of A and n columns of B, each of k blocks. lda
// and ldb count blocks, ldc counts floats. The result is false if the function does not compute such a product.
typedef bool (*sgemm_fn)(const struct ggml_compute_params*, int64_t m, int64_t n, int64_t k, const void* A, int64_t lda,
                         const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype, int Ctype);
typedef void (*quantize_fn)(const float* x, void* y, int64_t k);  // k is the number of values
typedef void (*forward_fn)(const struct ggml_compute_params*, struct ggml_tensor* dst);

// ggml's own functions, which loader.py looks up.
struct ggml_functions {
  sgemm_fn sgemm;
  forward_fn flash_attention;
  bool (*mul_mat_tiled)(const struct ggml_compute_params*, struct ggml_tensor* dst);
  bool (*mul_mat_id_tiled)(const struct ggml_compute_params*, struct ggml_tensor* dst, int64_t expert, int64_t columns,
                           const int32_t* rows, char* scratch);
  int (*chunk_add)(struct ggml_threadpool*, int);
  void (*chunk_set)(struct ggml_threadpool*, int);
  void (*barrier)(struct ggml_threadpool*);
  quantize_fn quantize_row_q8_0, quantize_row_q8_1, quantize_row_q8_K;
  void (*rms_norm_mul)(const struct ggml_compute_params*, struct ggml_tensor* norm, struct ggml_tensor* dst);
  void* (*aligned_malloc)(size_t);
  forward_fn mul_mat;
};

// Everything else that the library defines is visible, so that it takes the place of ggml's functions.
#define HIDDEN __attribute__((visibility("hidden")))
extern HIDDEN struct ggml_functions ggml;  // all NULL until puna_set_functions is called
extern HIDDEN bool puna_avx512;            // whether the kernels are on; if not, every call goes on to ggml
extern HIDDEN int puna_batch_invariant;    // see puna_set_batch_invariant

// The sequences of a batch that get the bits that each has in a batch of its own (sequences.c). Their tokens follow
// each other in the batch. With fewer than two, nothing is divided.
enum { MAX_SEQUENCES = 64 };
struct batch_sequences {
  int count;
  int64_t tokens;  // the sum of the lengths
  int64_t length[MAX_SEQUENCES];
};
extern HIDDEN struct batch_sequences puna_sequences;

// Computes a product for each sequence by itself, where its bits depend on the number of columns. False: nothing was
// done, and the product may be computed for all at once.
HIDDEN bool puna_multiply_sequences(const struct ggml_compute_params* params, struct ggml_tensor* dst);
