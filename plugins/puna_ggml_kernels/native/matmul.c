// Products of quantized matrices with AVX-512 VNNI, in the place of llamafile_sgemm.
//
// An element of C is the dot product of a row of A (weights) and a column of B (activations, quantized by quantize.c).
// A panel of sixteen rows is packed once (panel.h) and multiplied with all columns, up to eight at a time:
// matmul_q8_0.h does so for Q8_0, Q5_0, Q4_1 and Q5_1, matmul_q4_0.h for Q4_0, IQ4_NL and MXFP4, matmul_k_quants.h for
// Q2_K to Q6_K and IQ4_XS, and matmul_many_columns.c in prefill. With puna_exact each follows the order of additions of the ggml kernel that would compute
// the same case, so that the bits are ggml's. Otherwise each type has one order for any number of columns, so that the
// bits of a column do not depend on those beside it. find_format names the kernel for each case; every other case goes on to ggml.
//
// This file divides the work among threads. Threads claim chunks of panels where ggml has reset its counter of chunks,
// so that a thread that is held up leaves its share to the others. Columns are taken in passes that fit into the
// second-level cache.
#include <stdatomic.h>
#include <stdlib.h>

#include "decode.h"
#include "decode_k_quants.h"
#include "matmul_many_columns.h"
#include "matmul_q4_0.h"

enum {
  COLUMN_CACHE_BYTES =
      512 << 10,  // of columns that one panel after the other is multiplied with: they stay in the second-level cache
  CHUNKS_PER_THREAD = 6,  // chunks that a thread claims on average
  LEAST_FLOATS = 256,  // values of a row of floats from which a single column has the order of several; see matmul_f16.c
  INVARIANT_COLUMNS = 32,  // columns of a product, at most, that can have the bits of single ones: a token and its draft
};

static atomic_long calls, expert_calls;

long puna_matmul_calls(void) { return atomic_load(&calls); }
long puna_expert_calls(void) { return atomic_load(&expert_calls); }

typedef void product_fn(const struct panel*, const struct columns*, size_t n, void* packed);

KERNEL static void product_q8_0(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q8_0_product(GGML_TYPE_Q8_0, panel, x, n, packed);
}

KERNEL static void product_q5_0(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q8_0_product(GGML_TYPE_Q5_0, panel, x, n, packed);
}

KERNEL static void product_q4_1(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q8_0_product(GGML_TYPE_Q4_1, panel, x, n, packed);
}

KERNEL static void product_q5_1(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q8_0_product(GGML_TYPE_Q5_1, panel, x, n, packed);
}

KERNEL static void one_sum_q8_0(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_Q8_0, panel, x, n, packed);
}

KERNEL static void one_sum_q5_0(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_Q5_0, panel, x, n, packed);
}

KERNEL static void one_sum_q4_1(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_Q4_1, panel, x, n, packed);
}

KERNEL static void one_sum_q5_1(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_Q5_1, panel, x, n, packed);
}

KERNEL static void product_q4_0(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_Q4_0, panel, x, n, packed);
}

KERNEL static void product_iq4_nl(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_IQ4_NL, panel, x, n, packed);
}

KERNEL static void product_mxfp4(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  q4_0_product(GGML_TYPE_MXFP4, panel, x, n, packed);
}

KERNEL static void product_q4_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  repacked_product(GGML_TYPE_Q4_K, panel, x, n, packed);
}

KERNEL static void batch_invariant_q4_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  batch_invariant_product(GGML_TYPE_Q4_K, panel, x, n, packed);
}

KERNEL static void tiled_q4_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q4_K, panel, x, n, packed);
}

KERNEL static void tiled_q2_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q2_K, panel, x, n, packed);
}

KERNEL static void product_q5_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q5_K, panel, x, n, packed);
}

KERNEL static void vec_dot_q5_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  vec_dot_product(GGML_TYPE_Q5_K, panel, x, n);
}

KERNEL static void product_q6_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q6_K, panel, x, n, packed);
}

KERNEL static void vec_dot_q6_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  vec_dot_product(GGML_TYPE_Q6_K, panel, x, n);
}

KERNEL static void product_q3_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q3_K, panel, x, n, packed);
}

KERNEL static void vec_dot_q3_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  vec_dot_product(GGML_TYPE_Q3_K, panel, x, n);
}

KERNEL static void product_iq4_xs(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_IQ4_XS, panel, x, n, packed);
}

KERNEL static void vec_dot_iq4_xs(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  vec_dot_product(GGML_TYPE_IQ4_XS, panel, x, n);
}

KERNEL static void product_q2_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  repacked_product(GGML_TYPE_Q2_K, panel, x, n, packed);
}

KERNEL static void batch_invariant_q2_k(const struct panel* panel, const struct columns* x, size_t n, void* packed) {
  batch_invariant_product(GGML_TYPE_Q2_K, panel, x, n, packed);
}

KERNEL static void make_terms_q8_0(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  const __m256i unsign = _mm256_set1_epi8((char)offset);
  for (size_t k = 0; k < blocks; k++, b += Q8_0_BYTES) {
    uint16_t d;
    memcpy(&d, b, sizeof d);
    out[k].d = _cvtsh_ss(d);
    const __m256i values = _mm256_loadu_si256((const void*)(b + Q8_0_AT));
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsign, values);
    _mm256_storeu_si256((void*)out[k].compensation, _mm256_sub_epi32(_mm256_setzero_si256(), sums));
  }
}

// For one sum over all 32 values of a block: the compensations of its dwords together.
KERNEL static void make_terms_q4_0(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  make_terms_q8_0(b, blocks, offset, out);
  for (size_t k = 0; k < blocks; k++)
    for (int q = 1; q < DWORDS; q++) out[k].compensation[0] += out[k].compensation[q];
}

KERNEL static void make_terms_q8_1(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  (void)offset;
  for (size_t k = 0; k < blocks; k++, b += Q8_1_BYTES) {
    uint16_t d, sum;
    memcpy(&d, b, sizeof d);
    memcpy(&sum, b + Q8_1_SUM_AT, sizeof sum);
    out[k].d = _cvtsh_ss(d);
    out[k].sum = _cvtsh_ss(sum);
  }
}

KERNEL static void make_terms_q8_k(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  for (size_t k = 0; k < blocks; k++, b += Q8_K_BYTES, out += 2) {
    const __m512i sums = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void*)(b + Q8_K_SUMS_AT)));
    const __m512i offsets = _mm512_mullo_epi32(sums, _mm512_set1_epi32(-offset));
    _mm256_storeu_si256((void*)out[0].compensation, _mm512_castsi512_si256(offsets));
    _mm256_storeu_si256((void*)out[1].compensation, _mm512_extracti64x4_epi64(offsets, 1));
  }
}

// For sub-blocks of 32 values.
KERNEL static void make_terms_iq4_xs(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  for (size_t k = 0; k < blocks; k++, b += Q8_K_BYTES, out += 2) {
    const __m256i sums = _mm256_loadu_si256((const void*)(b + Q8_K_SUMS_AT));
    _mm256_storeu_si256((void*)out[0].compensation, _mm256_madd_epi16(sums, _mm256_set1_epi16((short)-offset)));
  }
}

// For each dword of each sub-block.
KERNEL static void make_dword_terms_q8_k(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out) {
  const __m256i unsign = _mm256_set1_epi8((char)offset);
  for (size_t k = 0; k < blocks; k++, b += Q8_K_BYTES, out += SUB_BLOCKS)
    for (int j = 0; j < SUB_BLOCKS; j++) {
      const __m256i values = _mm256_loadu_si256((const void*)(b + Q8_K_AT + 32 * j));
      const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsign, values);
      _mm256_storeu_si256((void*)out[j].compensation, _mm256_sub_epi32(_mm256_setzero_si256(), sums));
    }
}

typedef void make_terms_fn(const uint8_t* b, size_t blocks, int32_t offset, struct column_terms* out);

struct format {
  product_fn* product;
  size_t packed;              // bytes of a packed block of a panel
  int column;                 // type of the columns
  size_t column_bytes;        // bytes of a block of a column
  size_t terms_count;         // number of column_terms for such a block
  make_terms_fn* make_terms;  // computes them; NULL if there are none
};

// Returns whether each column must get the bits that it has as the only one. ggml's order of additions depends on the
// number of columns, for all types but those of q8_0_product. By default it matters only for types that are left to ggml.
static bool invariant_columns(int64_t n) { return puna_batch_invariant && n <= INVARIANT_COLUMNS; }

// Finds how to multiply m rows with n columns. `expert` is true for one of several matrices, of a mixture of experts:
// ggml multiplies repacked experts with each column alone. False if no kernel here has the bits of ggml's own for that
// case, or if ggml's is faster: with puna_exact a single column of Q5_K, Q6_K and IQ4_XS.
static bool find_format(int type, int64_t m, int64_t n, bool expert, struct format* out) {
  const size_t block = PACKED_REGISTERS * sizeof(__m512i), super_block_bytes = sizeof(struct packed_super_block);
  const size_t block_with_minimum = PACKED_WITH_MINIMUM * sizeof(__m512i);
  const bool invariant = invariant_columns(n), vec_dot = puna_exact && (invariant || n < TILED_COLUMNS);
  switch (type) {
    case GGML_TYPE_Q8_0:
      *out = puna_exact ? (struct format){product_q8_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q8_0}
                        : (struct format){one_sum_q8_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q4_0};
      return true;
    case GGML_TYPE_Q5_0:
      *out = puna_exact ? (struct format){product_q5_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q8_0}
                        : (struct format){one_sum_q5_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q4_0};
      return true;
    case GGML_TYPE_Q4_1:
      *out = (struct format){puna_exact ? product_q4_1 : one_sum_q4_1, block_with_minimum, GGML_TYPE_Q8_1, Q8_1_BYTES, 1, make_terms_q8_1};
      return true;
    case GGML_TYPE_Q5_1:
      *out = (struct format){puna_exact ? product_q5_1 : one_sum_q5_1, block_with_minimum, GGML_TYPE_Q8_1, Q8_1_BYTES, 1, make_terms_q8_1};
      return true;
    case GGML_TYPE_Q4_0:
      *out = (struct format){product_q4_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q4_0};
      return !puna_exact || m % REPACKED_ROWS == 0;
    case GGML_TYPE_IQ4_NL:
      *out = (struct format){product_iq4_nl, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q4_0};
      return !puna_exact || m % REPACKED_ROWS == 0;
    case GGML_TYPE_MXFP4:
      *out = (struct format){product_mxfp4, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, make_terms_q4_0};
      return !puna_exact || m % REPACKED_ROWS == 0;
    case GGML_TYPE_Q4_K:
      *out = (struct format){!puna_exact           ? tiled_q4_k
                             : invariant || expert ? batch_invariant_q4_k
                                                   : product_q4_k,
                             super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL};
      return !puna_exact || m % REPACKED_ROWS == 0;
    case GGML_TYPE_Q5_K:
      *out = (struct format){
          vec_dot ? vec_dot_q5_k : product_q5_k, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL};
      return !puna_exact || n > 1;
    case GGML_TYPE_Q6_K:
      *out = vec_dot ? (struct format){vec_dot_q6_k, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL}
                     : (struct format){product_q6_k, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 2, make_terms_q8_k};
      return !puna_exact || n > 1;
    case GGML_TYPE_Q3_K:
      *out = vec_dot ? (struct format){vec_dot_q3_k, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, SUB_BLOCKS,
                                       make_dword_terms_q8_k}
                     : (struct format){product_q3_k, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 2, make_terms_q8_k};
      return true;
    case GGML_TYPE_IQ4_XS:
      *out = vec_dot
                 ? (struct format){vec_dot_iq4_xs, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, SUB_BLOCKS,
                                   make_dword_terms_q8_k}
                 : (struct format){product_iq4_xs, super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 2, make_terms_iq4_xs};
      return !puna_exact || n > 1;
    case GGML_TYPE_Q2_K:
      *out = (struct format){!puna_exact           ? tiled_q2_k
                             : invariant || expert ? batch_invariant_q2_k
                                                   : product_q2_k,
                             super_block_bytes, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL};
      return !puna_exact || m % REPACKED_ROWS == 0;
    default:
      return false;
  }
}

// ggml tries its kernel for tiles before it quantizes the columns. Where a kernel here computes the product, false
// tells ggml to go on to llamafile_sgemm.
bool ggml_compute_forward_mul_mat_tiled(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  struct format format;
  const struct ggml_tensor *a = dst->src[0], *b = dst->src[1];
  if (puna_avx512 && puna_multiply_sequences(params, dst)) return true;
  if (puna_avx512 && b->type == GGML_TYPE_F32 && find_format(a->type, a->ne[1], b->ne[1], false, &format) &&
      format.column == GGML_TYPE_Q8_K)
    return false;
  if (puna_avx512 && invariant_columns(b->ne[1])) return false;
  return ggml.mul_mat_tiled(params, dst);
}

void* puna_thread_scratch(size_t bytes) {
  static _Thread_local struct thread_buffer buffer;
  return thread_room(&buffer, bytes);
}

// Returns ggml's dot product for types whose single columns are left to ggml.
static dot_fn own_dot(int type) {
  return !puna_exact                ? NULL
         : type == GGML_TYPE_Q5_K   ? ggml.dot_q5_k
         : type == GGML_TYPE_Q6_K   ? ggml.dot_q6_k
         : type == GGML_TYPE_IQ4_XS ? ggml.dot_iq4_xs
                                    : NULL;
}

bool puna_column_type(int type, int64_t rows, int* column) {
  struct format f;
  *column = GGML_TYPE_Q8_K;
  if (own_dot(type)) return true;
  if (!find_format(type, rows, 1, false, &f)) return false;
  *column = f.column;
  return true;
}

KERNEL static void multiply_by_dots(dot_fn dot, const struct ggml_tensor* a, const void* column, float* c, int64_t first,
                             int64_t end, struct weight_stream* stream) {
  const int lines = (int)(a->nb[1] / LINE) + 1;
  for (int64_t i = first; i < end; i++) {
    prefetch_weights(stream, lines);
    stream->ahead -= (int64_t)a->nb[1];
    dot((int)a->ne[0], c + i, 0, (const char*)a->data + (size_t)i * a->nb[1], 0, column, 0, 1);
  }
}

KERNEL static void multiply_pairs_q6_k(const struct ggml_tensor* a, const void* column, float* c, int64_t first,
                                       int64_t end, struct weight_stream* stream) {
  for (int64_t i = first; i < end; i += 2) {
    const uint8_t* row = (const uint8_t*)a->data + (size_t)i * a->nb[1];
    float out[2];
    decode_q6_k(row, i + 1 < end ? row + a->nb[1] : row, column, a->nb[1] / Q6_K_BYTES, stream, out);
    memcpy(c + i, out, (i + 1 < end ? 2 : 1) * sizeof *out);
    stream->ahead -= 2 * (int64_t)a->nb[1];
  }
}

KERNEL void puna_multiply_column(const struct ggml_tensor* a, const void* column, float* c, int64_t first, int64_t end,
                                 struct weight_stream* stream) {
  const int type = (int)a->type;
  const dot_fn dot = own_dot(type);
  if (dot && type == GGML_TYPE_Q6_K) {
    multiply_pairs_q6_k(a, column, c, first, end, stream);
    return;
  }
  if (dot) {
    multiply_by_dots(dot, a, column, c, first, end, stream);
    return;
  }
  struct format f;
  find_format(type, a->ne[1], 1, false, &f);
  const size_t blocks = a->nb[1] / block_bytes(type), terms_count = blocks * f.terms_count;
  uint8_t* packed = puna_thread_scratch(blocks * f.packed + terms_count * sizeof(struct column_terms));
  struct column_terms* terms = (struct column_terms*)(packed + blocks * f.packed);
  if (f.make_terms) f.make_terms(column, blocks, value_offset(type), terms);
  if (first == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  for (int64_t i = first; i < end; i += PANEL_ROWS) {
    struct panel panel = panel_at(a->data, a->nb[1], i, end);
    panel.stream = stream;
    const struct columns x = {column, blocks * f.column_bytes, terms, blocks, c + i, (size_t)a->ne[1]};
    f.product(&panel, &x, 1, packed);
    stream->ahead -= (int64_t)a->nb[1] * PANEL_ROWS;
  }
}

struct work {  // how a product is divided: `columns` and `panels_per_chunk` are sizes, the others are numbers
  int64_t columns, passes, panels, panels_per_chunk, chunks_per_pass;
};

// Without the counter every thread gets one share. With it there are several chunks for each, so that shares even out.
int64_t puna_panels_per_chunk(int64_t panels, int threads, bool claim) {
  int64_t count = claim ? panels / (threads * CHUNKS_PER_THREAD) : (panels + threads - 1) / threads;
  if (claim && count > 2 * CHUNKS_PER_THREAD) count = 2 * CHUNKS_PER_THREAD;
  return count < 1 ? 1 : count;
}

// Chooses the columns of a pass and the panels of a chunk.
static struct work divide_work(int64_t m, int64_t n, int64_t column_bytes, int threads, bool claim) {
  struct work w;
  w.columns = COLUMN_CACHE_BYTES / column_bytes / K_QUANT_COLUMNS * K_QUANT_COLUMNS;
  if (w.columns < K_QUANT_COLUMNS) w.columns = K_QUANT_COLUMNS;
  const int64_t parts = (n + w.columns - 1) / w.columns;
  // Passes of equal size: a short last one would unpack every panel for a few columns. A multiple of K_QUANT_COLUMNS
  // starts each pass at a group of four columns, as repacked_product needs it.
  const int64_t even = ((n + parts - 1) / parts + K_QUANT_COLUMNS - 1) / K_QUANT_COLUMNS * K_QUANT_COLUMNS;
  if (even < w.columns) w.columns = even;
  w.passes = (n + w.columns - 1) / w.columns;
  w.panels = (m + PANEL_ROWS - 1) / PANEL_ROWS;
  w.panels_per_chunk = puna_panels_per_chunk(w.panels, threads, claim);
  w.chunks_per_pass = (w.panels + w.panels_per_chunk - 1) / w.panels_per_chunk;
  return w;
}

static bool is_float(int type) { return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16; }

bool llamafile_sgemm(const struct ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* A,
                     int64_t lda, const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype, int Ctype) {
  const size_t bytes = block_bytes(Atype);
  struct format f;
  if (!puna_avx512 || Ctype != GGML_TYPE_F32 || m < 1 || n < 1 || k < 1 || !find_format(Atype, m, n, false, &f) ||
      Btype != f.column) {
    const bool one_order = !puna_exact && is_float(Atype) && Btype == Atype && Ctype == GGML_TYPE_F32 && k >= LEAST_FLOATS;
    if (puna_avx512 && one_order && n == 1) return puna_multiply_float_column(params, m, k, A, lda, B, C, Atype);
    // ggml multiplies a single column by dot products, and does the same with more of them after this answer.
    if (puna_avx512 && invariant_columns(n) && !one_order) return false;
    if (puna_avx512 && Atype == GGML_TYPE_F16 && Btype == GGML_TYPE_F16 && Ctype == GGML_TYPE_F32 &&
        puna_multiply_f16(params, m, n, k, A, lda, B, ldb, C, ldc))
      return true;
    return ggml.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, Atype, Btype, Ctype);
  }

  // ggml resets the chunk counter right before it passes columns at wdata, and in no other case.
  const bool claim = B == params->wdata;
  const size_t column = (size_t)ldb * f.column_bytes, terms_count = (size_t)k * f.terms_count;
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  if (n >= MANY_COLUMNS && puna_takes_many_columns(Atype)) {
    const struct many_columns product = {Atype, A, B, (size_t)lda * bytes, column, m, n, k, C, ldc};
    puna_multiply_many_columns(params, &product, claim);
    return true;
  }
  const int64_t used = (int64_t)((size_t)k * f.column_bytes +
                                 terms_count * sizeof(struct column_terms));  // bytes of a column and its terms
  const struct work w = divide_work(m, n, used, params->nth, claim);
  uint8_t* packed =
      puna_thread_scratch((size_t)k * f.packed + (size_t)w.columns * terms_count * sizeof(struct column_terms));
  struct column_terms* terms = (struct column_terms*)(packed + (size_t)k * f.packed);

  int64_t terms_made_for = -1;
  for (int64_t chunk = params->ith; chunk < w.chunks_per_pass * w.passes;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t j = chunk / w.chunks_per_pass * w.columns;
    const int64_t columns = n - j < w.columns ? n - j : w.columns;
    const uint8_t* b = (const uint8_t*)B + (size_t)j * column;
    // Each thread makes the terms for itself, once for a pass: sharing them would take another barrier.
    if (j != terms_made_for && f.make_terms)
      for (size_t i = 0; i < (size_t)columns; i++)
        f.make_terms(b + i * column, (size_t)k, value_offset(Atype), terms + i * terms_count);
    terms_made_for = j;
    const int64_t first = chunk % w.chunks_per_pass * w.panels_per_chunk;
    for (int64_t i = first; i < w.panels && i < first + w.panels_per_chunk; i++) {
      const struct panel panel = panel_at(A, (size_t)lda * bytes, i * PANEL_ROWS, m);
      const struct columns x = {b, column, terms, (size_t)k, (float*)C + j * ldc + i * PANEL_ROWS, (size_t)ldc};
      f.product(&panel, &x, (size_t)columns, packed);
    }
  }
  return true;
}

// A product with one expert of a mixture: its matrix, and the columns that were routed to it.
struct expert {
  const struct ggml_compute_params* params;
  struct ggml_tensor* dst;
  const uint8_t* a;
  const int32_t* rows;  // for each column two numbers: its place among the experts of its token, and the token
};

// Returns where column i of the routed ones is stored, quantized.
static const uint8_t* routed_column(const struct expert* e, size_t i, size_t bytes) {
  const struct ggml_tensor* b = e->dst->src[1];
  // With one column for each token, all its experts share it.
  return (const uint8_t*)e->params->wdata + (size_t)(e->rows[2 * i] % b->ne[1] + e->rows[2 * i + 1] * b->ne[1]) * bytes;
}

static float* routed_result(const struct expert* e, size_t i) {
  const size_t* nb = e->dst->nb;
  return (float*)((char*)e->dst->data + (size_t)e->rows[2 * i] * nb[1] + (size_t)e->rows[2 * i + 1] * nb[2]);
}

// Multiplies this thread's share of the panels with n columns. They are copied side by side first, and the results of a
// panel go to their places one by one.
KERNEL static void multiply_expert(const struct expert* e, const struct format* f, size_t n) {
  const struct ggml_tensor* a = e->dst->src[0];
  const int64_t m = a->ne[1], panels = (m + PANEL_ROWS - 1) / PANEL_ROWS;
  const size_t blocks = a->nb[1] / block_bytes((int)a->type), column = blocks * f->column_bytes;
  const size_t terms_count = blocks * f->terms_count, lines = (column + LINE - 1) / LINE * LINE;
  uint8_t* packed = puna_thread_scratch(blocks * f->packed + n * (lines + PANEL_ROWS * sizeof(float)) +
                                        n * terms_count * sizeof(struct column_terms));
  uint8_t* b = packed + blocks * f->packed;
  float* c = (float*)(b + n * lines);
  struct column_terms* terms = (struct column_terms*)(c + n * PANEL_ROWS);
  for (size_t i = 0; i < n; i++) {
    memcpy(b + i * lines, routed_column(e, i, column), column);
    if (f->make_terms) f->make_terms(b + i * lines, blocks, value_offset((int)a->type), terms + i * terms_count);
  }
  const int64_t end = panels * (e->params->ith + 1) / e->params->nth;
  for (int64_t i = panels * e->params->ith / e->params->nth; i < end; i++) {
    const struct panel panel = panel_at(e->a, a->nb[1], i * PANEL_ROWS, m);
    f->product(&panel, &(struct columns){b, lines, terms, blocks, c, PANEL_ROWS}, n, packed);
    for (size_t j = 0; j < n; j++)
      _mm512_mask_storeu_ps(routed_result(e, j) + i * PANEL_ROWS, panel.store_mask, _mm512_load_ps(c + j * PANEL_ROWS));
  }
}

// ggml calls this on each thread for each expert that has columns, after the columns are quantized. False tells ggml to
// multiply them itself.
bool ggml_compute_forward_mul_mat_id_tiled(const struct ggml_compute_params* params, struct ggml_tensor* dst,
                                           int64_t expert, int64_t n, const int32_t* rows, char* scratch) {
  const struct ggml_tensor *a = dst->src[0], *b = dst->src[1];
  struct format f;
  if (!puna_avx512 || params->use_ref || b->type != GGML_TYPE_F32 || n < 1 ||
      !find_format((int)a->type, a->ne[1], n, true, &f)) {
    // ggml takes dot products after this answer, as for a single column.
    if (puna_avx512 && invariant_columns(n)) return false;
    return ggml.mul_mat_id_tiled(params, dst, expert, n, rows, scratch);
  }
  if (params->ith == 0) atomic_fetch_add_explicit(&expert_calls, 1, memory_order_relaxed);
  const size_t bytes = a->nb[1] / block_bytes((int)a->type) * f.column_bytes;
  int64_t most = (int64_t)(COLUMN_CACHE_BYTES / bytes) / K_QUANT_COLUMNS * K_QUANT_COLUMNS;
  if (most < K_QUANT_COLUMNS) most = K_QUANT_COLUMNS;
  struct expert e = {params, dst, (const uint8_t*)a->data + (size_t)expert * a->nb[2], rows};
  for (; n > 0; n -= most, e.rows += 2 * most) multiply_expert(&e, &f, (size_t)(n < most ? n : most));
  return true;
}
