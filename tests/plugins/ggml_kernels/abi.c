// Compiled by test_abi.py, never run: compares native/ggml_abi.h with the headers of ggml. Real declarations keep their
// names; those of the mirror get others.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef WITH_SOURCES
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "llamafile/sgemm.h"
#include "ops.h"
#include "quants.h"
#include "tiled/tiled.h"
#else
#include "ggml-cpu.h"
#include "ggml.h"
#endif
#include "gguf.h"
#include "llama.h"

enum {
  F32 = GGML_TYPE_F32,
  F16 = GGML_TYPE_F16,
  Q4_0 = GGML_TYPE_Q4_0,
  Q4_1 = GGML_TYPE_Q4_1,
  Q5_0 = GGML_TYPE_Q5_0,
  Q5_1 = GGML_TYPE_Q5_1,
  Q8_0 = GGML_TYPE_Q8_0,
  Q8_1 = GGML_TYPE_Q8_1,
  Q3_K = GGML_TYPE_Q3_K,
  Q2_K = GGML_TYPE_Q2_K,
  Q4_K = GGML_TYPE_Q4_K,
  Q5_K = GGML_TYPE_Q5_K,
  Q6_K = GGML_TYPE_Q6_K,
  Q8_K = GGML_TYPE_Q8_K,
  IQ4_NL = GGML_TYPE_IQ4_NL,
  IQ4_XS = GGML_TYPE_IQ4_XS,
  BF16 = GGML_TYPE_BF16,
  MXFP4 = GGML_TYPE_MXFP4,
};
#define EACH_OP(f) \
  f(NONE) f(ADD) f(MUL) f(RMS_NORM) f(MUL_MAT) f(RESHAPE) f(VIEW) f(PERMUTE) f(TRANSPOSE) f(SET_ROWS) f(ROPE) f(GLU)
#define REAL_OP(name) REAL_##name = GGML_OP_##name,
enum { EACH_OP(REAL_OP) SWIGLU = GGML_GLU_OP_SWIGLU, ABORTED = GGML_STATUS_ABORTED, COMPUTED = GGML_TENSOR_FLAG_COMPUTE };
_Static_assert(SWIGLU == 2 && ABORTED == 1 && COMPUTED == 16, "numbers in decode.c");

// What ggml.py names by number.
_Static_assert(GGML_TYPE_Q4_1 == 3 && GGML_TYPE_Q2_K == 10 && GGML_TYPE_IQ4_NL == 20 && GGML_TYPE_MXFP4 == 39, "types in ggml.py");

// What gelu.c names by number.
_Static_assert(GGML_UNARY_OP_GELU == 8, "operations in gelu.c");
struct gguf_parameters {
  bool no_alloc;
  void* context;
};
_Static_assert(sizeof(struct gguf_parameters) == sizeof(struct gguf_init_params) &&
                   offsetof(struct gguf_parameters, context) == offsetof(struct gguf_init_params, ctx),
               "struct gguf_init_params");
struct context_parameters {
  size_t size;
  void* buffer;
  bool no_alloc;
};
_Static_assert(sizeof(struct context_parameters) == sizeof(struct ggml_init_params) &&
                   offsetof(struct context_parameters, buffer) == offsetof(struct ggml_init_params, mem_buffer) &&
                   offsetof(struct context_parameters, no_alloc) == offsetof(struct ggml_init_params, no_alloc),
               "struct ggml_init_params");

#define ggml_type mirror_type
#define ggml_tensor mirror_tensor
#define ggml_compute_params mirror_compute_params
#define ggml_op mirror_op
#define ggml_cgraph mirror_cgraph
#define ggml_cplan mirror_cplan
#define ggml_threadpool_params mirror_threadpool_params
#define GGML_OP_NONE MIRROR_OP_NONE
#define GGML_OP_ADD MIRROR_OP_ADD
#define GGML_OP_MUL MIRROR_OP_MUL
#define GGML_OP_RMS_NORM MIRROR_OP_RMS_NORM
#define GGML_OP_MUL_MAT MIRROR_OP_MUL_MAT
#define GGML_OP_RESHAPE MIRROR_OP_RESHAPE
#define GGML_OP_VIEW MIRROR_OP_VIEW
#define GGML_OP_PERMUTE MIRROR_OP_PERMUTE
#define GGML_OP_TRANSPOSE MIRROR_OP_TRANSPOSE
#define GGML_OP_SET_ROWS MIRROR_OP_SET_ROWS
#define GGML_OP_ROPE MIRROR_OP_ROPE
#define GGML_OP_GLU MIRROR_OP_GLU
#define quantize_row_q8_0 mirror_quantize_row_q8_0
#define quantize_row_q8_1 mirror_quantize_row_q8_1
#define quantize_row_q8_K mirror_quantize_row_q8_K
#define GGML_TYPE_F32 MIRROR_F32
#define GGML_TYPE_F16 MIRROR_F16
#define GGML_TYPE_Q4_0 MIRROR_Q4_0
#define GGML_TYPE_Q4_1 MIRROR_Q4_1
#define GGML_TYPE_Q5_0 MIRROR_Q5_0
#define GGML_TYPE_Q5_1 MIRROR_Q5_1
#define GGML_TYPE_Q8_0 MIRROR_Q8_0
#define GGML_TYPE_Q8_1 MIRROR_Q8_1
#define GGML_TYPE_Q3_K MIRROR_Q3_K
#define GGML_TYPE_Q2_K MIRROR_Q2_K
#define GGML_TYPE_Q4_K MIRROR_Q4_K
#define GGML_TYPE_Q5_K MIRROR_Q5_K
#define GGML_TYPE_Q6_K MIRROR_Q6_K
#define GGML_TYPE_Q8_K MIRROR_Q8_K
#define GGML_TYPE_IQ4_NL MIRROR_IQ4_NL
#define GGML_TYPE_IQ4_XS MIRROR_IQ4_XS
#define GGML_TYPE_BF16 MIRROR_BF16
#define GGML_TYPE_MXFP4 MIRROR_MXFP4
#include "ggml_abi.h"
#define llama_batch mirror_batch
#define llama_token_data mirror_token_data
#define llama_token_data_array mirror_token_data_array
#include "llama_abi.h"
#undef llama_batch
#undef llama_token_data
#undef llama_token_data_array
#undef ggml_type
#undef ggml_tensor
#undef ggml_compute_params
#undef ggml_op
#undef ggml_cgraph
#undef ggml_cplan
#undef ggml_threadpool_params
#undef quantize_row_q8_0
#undef quantize_row_q8_1
#undef quantize_row_q8_K

#define SAME(structure, member)                                                                              \
  _Static_assert(offsetof(struct ggml_##structure, member) == offsetof(struct mirror_##structure, member) && \
                     sizeof(((struct ggml_##structure*)0)->member) ==                                        \
                         sizeof(((struct mirror_##structure*)0)->member),                                    \
                 #structure "." #member)

#define SAME_IN_LLAMA(structure, member)                                                                       \
  _Static_assert(offsetof(struct llama_##structure, member) == offsetof(struct mirror_##structure, member) && \
                     sizeof(((struct llama_##structure*)0)->member) ==                                        \
                         sizeof(((struct mirror_##structure*)0)->member),                                     \
                 #structure "." #member)
_Static_assert(sizeof(struct llama_batch) == sizeof(struct mirror_batch), "size of a batch");
SAME_IN_LLAMA(batch, n_tokens);
SAME_IN_LLAMA(batch, token);
SAME_IN_LLAMA(batch, embd);
SAME_IN_LLAMA(batch, pos);
SAME_IN_LLAMA(batch, n_seq_id);
SAME_IN_LLAMA(batch, seq_id);
SAME_IN_LLAMA(batch, logits);
_Static_assert(sizeof(struct llama_token_data) == sizeof(struct mirror_token_data), "size of a candidate");
SAME_IN_LLAMA(token_data, id);
SAME_IN_LLAMA(token_data, logit);
SAME_IN_LLAMA(token_data, p);
SAME_IN_LLAMA(token_data_array, data);
SAME_IN_LLAMA(token_data_array, size);
SAME_IN_LLAMA(token_data_array, selected);
SAME_IN_LLAMA(token_data_array, sorted);

#define SAME_OP(name) _Static_assert((int)REAL_##name == (int)MIRROR_OP_##name, #name);
EACH_OP(SAME_OP)

_Static_assert(sizeof(struct ggml_cplan) == sizeof(struct mirror_cplan), "size of a plan");
SAME(cplan, work_size);
SAME(cplan, work_data);
SAME(cplan, n_threads);
SAME(cplan, threadpool);
SAME(cplan, abort_callback);
SAME(cplan, abort_callback_data);
SAME(cplan, use_ref);

_Static_assert(sizeof(struct ggml_threadpool_params) == sizeof(struct mirror_threadpool_params), "size of a pool's parameters");
// The mirror's function types, with ggml's own structs.
#define IS(function, ...)                                                                     \
  _Static_assert(__builtin_types_compatible_p(__typeof__(&function), __typeof__(__VA_ARGS__)), #function)
IS(ggml_threadpool_params_init, (void (*)(struct ggml_threadpool_params*, int))0);
IS(ggml_threadpool_new, (struct ggml_threadpool * (*)(struct ggml_threadpool_params*))0);
IS(ggml_threadpool_free, (void (*)(struct ggml_threadpool*))0);

_Static_assert(sizeof(struct ggml_tensor) == sizeof(struct mirror_tensor), "size of a tensor");
SAME(tensor, type);
SAME(tensor, buffer);
SAME(tensor, ne);
SAME(tensor, nb);
SAME(tensor, op);
SAME(tensor, op_params);
SAME(tensor, flags);
SAME(tensor, src);
SAME(tensor, view_src);
SAME(tensor, view_offs);
SAME(tensor, data);
SAME(tensor, name);
SAME(tensor, extra);

#define SAME_TYPE(name) _Static_assert((int)name == (int)MIRROR_##name, #name)
SAME_TYPE(F32);
SAME_TYPE(F16);
SAME_TYPE(Q4_0);
SAME_TYPE(Q4_1);
SAME_TYPE(Q5_0);
SAME_TYPE(Q5_1);
SAME_TYPE(Q8_0);
SAME_TYPE(Q8_1);
SAME_TYPE(Q3_K);
SAME_TYPE(Q2_K);
SAME_TYPE(Q4_K);
SAME_TYPE(Q5_K);
SAME_TYPE(Q6_K);
SAME_TYPE(Q8_K);
SAME_TYPE(IQ4_NL);
SAME_TYPE(IQ4_XS);
SAME_TYPE(BF16);
SAME_TYPE(MXFP4);

#ifdef WITH_SOURCES
_Static_assert(sizeof(struct ggml_compute_params) == sizeof(struct mirror_compute_params), "size of the parameters");
SAME(compute_params, ith);
SAME(compute_params, nth);
SAME(compute_params, wsize);
SAME(compute_params, wdata);
SAME(compute_params, threadpool);
SAME(compute_params, use_ref);

typedef const struct ggml_compute_params* parameters;
IS(llamafile_sgemm, (bool (*)(parameters, int64_t, int64_t, int64_t, const void*, int64_t, const void*, int64_t, void*,
                              int64_t, int, int, int))0);
IS(ggml_compute_forward_flash_attn_ext, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_mul_mat, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_unary, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_mul_mat_tiled, (bool (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_mul_mat_id_tiled,
   (bool (*)(parameters, struct ggml_tensor*, int64_t, int64_t, const int32_t*, char*))0);
IS(ggml_compute_forward_rms_norm_mul_fused, (void (*)(parameters, struct ggml_tensor*, struct ggml_tensor*))0);
IS(ggml_threadpool_chunk_add, (int (*)(struct ggml_threadpool*, int))0);
IS(ggml_threadpool_chunk_set, (void (*)(struct ggml_threadpool*, int))0);
SAME(cgraph, n_nodes);
SAME(cgraph, nodes);
SAME(cgraph, uid);
IS(ggml_graph_compute, (enum ggml_status (*)(struct ggml_cgraph*, struct ggml_cplan*))0);
IS(ggml_compute_forward_add, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_glu, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_rope, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_compute_forward_set_rows, (void (*)(parameters, struct ggml_tensor*))0);
IS(ggml_cpu_fp32_to_fp16, (void (*)(const float*, ggml_fp16_t*, int64_t))0);
IS(ggml_vec_dot_q6_K_q8_K, (void (*)(int, float*, size_t, const void*, size_t, const void*, size_t, int))0);
IS(ggml_aligned_malloc, (void* (*)(size_t))0);
IS(ggml_barrier, (void (*)(struct ggml_threadpool*))0);
IS(quantize_row_q8_0, (void (*)(const float*, void*, int64_t))0);
IS(quantize_row_q8_1, (void (*)(const float*, void*, int64_t))0);
IS(quantize_row_q8_K, (void (*)(const float*, void*, int64_t))0);
#endif
