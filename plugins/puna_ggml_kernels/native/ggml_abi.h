// The part of ggml's internal interface that the kernels touch: some structs, and the functions that they replace or
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

enum ggml_op {
  GGML_OP_NONE = 0,
  GGML_OP_ADD = 2,
  GGML_OP_MUL = 7,
  GGML_OP_RMS_NORM = 25,
  GGML_OP_MUL_MAT = 29,
  GGML_OP_RESHAPE = 36,
  GGML_OP_VIEW = 37,
  GGML_OP_PERMUTE = 38,
  GGML_OP_TRANSPOSE = 39,
  GGML_OP_SET_ROWS = 42,
  GGML_OP_ROPE = 48,
  GGML_OP_GLU = 100,
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

// A graph, in the order in which its nodes are computed.
struct ggml_cgraph {
  int size, n_nodes, n_leafs;
  struct ggml_tensor **nodes, **grads, **grad_accs, **leafs;
  int32_t* use_counts;
  struct {
    size_t size;
    uint32_t* used;
    struct ggml_tensor** keys;
  } visited_hash_set;
  int order;
  uint64_t uid;  // the same for the same graph; 0 if it has none
};

struct ggml_cplan {
  size_t work_size;
  uint8_t* work_data;
  int n_threads;
  struct ggml_threadpool* threadpool;
  bool (*abort_callback)(void* data);
  void* abort_callback_data;
  bool use_ref;
};

struct ggml_threadpool_params {
  bool cpumask[512];
  int n_threads, prio;
  uint32_t poll;
  bool strict_cpu, paused;
};

// llamafile_sgemm of llamafile/sgemm.h. It computes C = A' B for m rows of A and n columns of B, each of k blocks. lda
// and ldb count blocks, ldc counts floats. The result is false if the function does not compute such a product.
typedef bool (*sgemm_fn)(const struct ggml_compute_params*, int64_t m, int64_t n, int64_t k, const void* A, int64_t lda,
                         const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype, int Ctype);
typedef void (*quantize_fn)(const float* x, void* y, int64_t k);  // k is the number of values
typedef void (*forward_fn)(const struct ggml_compute_params*, struct ggml_tensor* dst);

// The dot product of a row and a column of n values.
typedef void (*dot_fn)(int n, float* out, size_t, const void* x, size_t, const void* y, size_t, int rows);

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
  int (*graph_compute)(struct ggml_cgraph*, struct ggml_cplan*);
  forward_fn mul_mat, add, glu, rope, set_rows;
  void (*swiglu)(int n, float* y, const float* x, const float* gate);
  void (*to_f16)(const float* x, uint16_t* y, int64_t n);
  dot_fn dot_q5_k, dot_q6_k, dot_iq4_xs;
  forward_fn unary;
  const uint16_t* gelu;  // GELU of each 16-bit float
  int (*has_avx512_bf16)(void);
  void (*threadpool_params_init)(struct ggml_threadpool_params*, int threads);
  struct ggml_threadpool* (*threadpool_new)(struct ggml_threadpool_params*);
  void (*threadpool_free)(struct ggml_threadpool*);
  int (*omp_threads)(void);  // of the calling thread's team; NULL if ggml has no OpenMP
};

// Everything else that the library defines is visible, so that it takes the place of ggml's functions.
#define HIDDEN __attribute__((visibility("hidden")))
extern HIDDEN struct ggml_functions ggml;  // all NULL until puna_set_functions is called
extern HIDDEN bool puna_avx512;            // whether the kernels are on; if not, every call goes on to ggml
extern HIDDEN bool puna_exact;             // see puna_set_exact
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

// These take the place of ggml's and are called here too.
void quantize_row_q8_0(const float* x, void* y, int64_t k);
void quantize_row_q8_1(const float* x, void* y, int64_t k);
void quantize_row_q8_K(const float* x, void* y, int64_t k);

// Computes C = A' B for 16-bit floats, like sgemm_fn. False: nothing was done.
HIDDEN bool puna_multiply_f16(const struct ggml_compute_params*, int64_t m, int64_t n, int64_t k, const void* A,
                              int64_t lda, const void* B, int64_t ldb, void* C, int64_t ldc);
// The same for one column and a type of floats, in the order of several columns.
HIDDEN bool puna_multiply_float_column(const struct ggml_compute_params*, int64_t m, int64_t k, const void* A,
                                       int64_t lda, const void* B, void* C, int type);
