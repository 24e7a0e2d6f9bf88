// Products of F16 matrices with several columns, which llamafile_sgemm passes on.
//
// ggml keeps sixteen sums for each element of the result, one for each lane, adds products to them in ascending order,
// and adds the lanes up at the end: 8 apart, 4 apart, 2 apart, then neighbors. So does the kernel, for ROWS rows and up
// to COLUMNS columns at a time, whose sums fill 24 registers.
//
// The gain comes from what surrounds the multiplications. ggml converts a row to 32 bits again for every six columns,
// and a column for every four rows. Here columns are converted once for a pass, and rows with the first columns that
// they are multiplied with. Lanes are added up for all 24 sums together, where ggml takes one sum after the other,
// which is a fifth of the work in a matrix of 384 columns. The rows that come next are prefetched while the second
// columns are multiplied: otherwise memory would rest then, and the multiplications wait for it at the next rows.
//
// ggml multiplies a single column by dot products, in another order. Unless its bits are asked for (puna_exact), a single
// column of F32, F16 and BF16 has the order of several here, so that its bits do not depend on the columns beside it. Rows of fewer than 256
// values keep ggml's order: models as small as that serve as examples whose answers are compared with Ollama's.
#include <stdatomic.h>

#include "attention.h"
#include "panel.h"
#include "thread_scratch.h"

enum {
  ROWS = 4,
  COLUMNS = 6,
  LONGEST = 1536,            // values of a row, at most, where the columns take several passes
  COLUMN_BYTES = 512 << 10,  // of the columns of a pass, which stay in the second-level cache
  ROWS_PER_CHUNK = 32,       // rows that a thread claims
};

static atomic_long calls;

long puna_f16_calls(void) { return atomic_load(&calls); }

struct factors {
  const uint16_t* a;  // ROWS rows of `lda` elements
  const uint16_t* next;  // the rows to prefetch; NULL: none
  float* rows;        // the same as 32-bit floats, k of them each
  const float* b;     // columns of k elements
  float* c;           // the result, with `ldc` elements between two columns
  int64_t lda, ldc, k;
};

// Returns the sums of the lanes of four registers, as quarters.
INLINE __m512 add_quarters(const __m512 x[ROWS]) {
  __m512 half[2];
  for (int i = 0; i < 2; i++) {
    const __m512 one = x[2 * i], two = x[2 * i + 1];
    half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, two, 0x44), _mm512_shuffle_f32x4(one, two, 0xee));
  }
  return _mm512_add_ps(_mm512_shuffle_f32x4(half[0], half[1], 0x88), _mm512_shuffle_f32x4(half[0], half[1], 0xdd));
}

// Adds up the lanes of up to COLUMNS columns of ROWS sums, and stores them.
INLINE void store_sums(const int n, __m512 sum[COLUMNS][ROWS], float* c, int64_t ldc) {
  // From row r, column j at 4 r + j to row r at 4 j + r.
  const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int j = 0; j < n; j += 4) {
    __m512 quarter[4];
    for (int i = 0; i < 4; i++) quarter[i] = add_quarters(sum[j + i < n ? j + i : n - 1]);
    __m512 pair[2];
    for (int i = 0; i < 2; i++) {
      const __m512d one = _mm512_castps_pd(quarter[2 * i]), two = _mm512_castps_pd(quarter[2 * i + 1]);
      const __m512 low = _mm512_castpd_ps(_mm512_unpacklo_pd(one, two));
      pair[i] = _mm512_add_ps(low, _mm512_castpd_ps(_mm512_unpackhi_pd(one, two)));
    }
    const __m512 even = _mm512_shuffle_ps(pair[0], pair[1], 0x88), odd = _mm512_shuffle_ps(pair[0], pair[1], 0xdd);
    const __m512 all = _mm512_permutexvar_ps(turn, _mm512_add_ps(even, odd));
    _mm_storeu_ps(c + j * ldc, _mm512_castps512_ps128(all));
    if (j + 1 < n) _mm_storeu_ps(c + (j + 1) * ldc, _mm512_extractf32x4_ps(all, 1));
    if (j + 2 < n) _mm_storeu_ps(c + (j + 2) * ldc, _mm512_extractf32x4_ps(all, 2));
    if (j + 3 < n) _mm_storeu_ps(c + (j + 3) * ldc, _mm512_extractf32x4_ps(all, 3));
  }
}

// Multiplies ROWS rows with n columns from `first` on. `convert`: these are the first columns, and the rows are not
// converted yet. `keep`: there will be more columns.
INLINE void multiply(const int n, const bool convert, const bool keep, const struct factors* f, int64_t first) {
  __m512 sum[COLUMNS][ROWS];
  const float* b = f->b + first * f->k;
  for (int j = 0; j < n; j++)
    for (int r = 0; r < ROWS; r++) sum[j][r] = _mm512_setzero_ps();
  for (int64_t i = 0; i < f->k; i += LANES) {
    if (f->next && i % (64 / (int64_t)sizeof(*f->next)) == 0)
      for (int r = 0; r < ROWS; r++) _mm_prefetch((const char*)(f->next + r * f->lda + i), _MM_HINT_T1);
    __m512 row[ROWS];
    for (int r = 0; r < ROWS; r++) {
      row[r] = convert ? load_half(f->a + r * f->lda + i) : _mm512_load_ps(f->rows + r * f->k + i);
      if (keep) _mm512_store_ps(f->rows + r * f->k + i, row[r]);
    }
    for (int j = 0; j < n; j++) {
      const __m512 x = _mm512_load_ps(b + j * f->k + i);
      for (int r = 0; r < ROWS; r++) sum[j][r] = _mm512_fmadd_ps(row[r], x, sum[j][r]);
    }
  }
  store_sums(n, sum, f->c + first * f->ldc, f->ldc);
}

#define MULTIPLY(n)                                                                                             \
  KERNEL static void only##n(const struct factors* f, int64_t first) { multiply(n, true, false, f, first); }   \
  KERNEL static void first##n(const struct factors* f, int64_t first) { multiply(n, true, true, f, first); }   \
  KERNEL static void later##n(const struct factors* f, int64_t first) { multiply(n, false, false, f, first); }
MULTIPLY(1)
MULTIPLY(2)
MULTIPLY(3)
MULTIPLY(4)
MULTIPLY(5)
MULTIPLY(6)

typedef void multiply_fn(const struct factors*, int64_t first);

// Multiplies ROWS rows with n columns, in parts of nearly the same size. `next`: the rows that this thread is likely to
// multiply next, or NULL.
static void multiply_rows(struct factors* f, int64_t n, const uint16_t* next) {
  multiply_fn* const only[] = {only1, only2, only3, only4, only5, only6};
  multiply_fn* const first[] = {first1, first2, first3, first4, first5, first6};
  multiply_fn* const later[] = {later1, later2, later3, later4, later5, later6};
  const int64_t parts = (n + COLUMNS - 1) / COLUMNS;
  for (int64_t i = 0; i < parts; i++) {
    const int64_t from = n * i / parts, columns = n * (i + 1) / parts - from;
    f->next = i == (parts > 1) ? next : NULL;
    (parts == 1 ? only : i ? later : first)[columns - 1](f, from);
  }
}

KERNEL static void convert_columns(const uint16_t* b, int64_t ldb, int64_t n, int64_t k, float* to) {
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < k; i += LANES) _mm512_store_ps(to + j * k + i, load_half(b + j * ldb + i));
}

bool puna_multiply_f16(const struct ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* A,
                       int64_t lda, const void* B, int64_t ldb, void* C, int64_t ldc) {
  // ggml multiplies other shapes in another order.
  if (n < 2 || m % ROWS || k % LANES || k < LANES) return false;
  int64_t most = COLUMN_BYTES / (k * (int64_t)sizeof(float)) / COLUMNS * COLUMNS;
  if (most < COLUMNS) most = COLUMNS;
  const int64_t passes = (n + most - 1) / most, chunks = (m + ROWS_PER_CHUNK - 1) / ROWS_PER_CHUNK;
  // Each pass reads and converts all rows again, which takes longer than ggml's product where rows are long.
  if (passes > 1 && k > LONGEST) return false;
  const int64_t widest = (n + passes - 1) / passes;
  float* memory = puna_thread_scratch((size_t)((widest + ROWS) * k) * sizeof(float));
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  struct factors f = {.rows = memory + widest * k, .b = memory, .lda = lda, .ldc = ldc, .k = k};
  // ggml resets the chunk counter right before it passes columns at wdata, and in no other case.
  const bool claim = B == params->wdata;
  int64_t converted = -1;
  for (int64_t chunk = params->ith; chunk < chunks * passes;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t pass = chunk / chunks, from = n * pass / passes, columns = n * (pass + 1) / passes - from;
    if (pass != converted) convert_columns((const uint16_t*)B + from * ldb, ldb, columns, k, memory);
    converted = pass;
    const int64_t end = (chunk % chunks + 1) * ROWS_PER_CHUNK;
    for (int64_t i = chunk % chunks * ROWS_PER_CHUNK; i < end && i < m; i += ROWS) {
      f.a = (const uint16_t*)A + i * lda;
      f.c = (float*)C + from * ldc + i;
      // Threads of equal speed claim chunks in turn.
      const int64_t next = i + ROWS < end ? i + ROWS : end + (params->nth - 1) * ROWS_PER_CHUNK;
      multiply_rows(&f, columns, next < m ? (const uint16_t*)A + next * lda : NULL);
    }
  }
  return true;
}

// ---- single columns ------------------------------------------------------------------------------------------------

// A product with one column: the kernel for a type of A and ROWS rows from `a` on, `next` as in struct factors.
typedef void column_fn(const char* a, const char* next, size_t lda, const void* b, int64_t k, float* c);

INLINE void prefetch_rows(const char* next, size_t lda, size_t at) {
  if (next) UNROLL
  for (int r = 0; r < ROWS; r++) _mm_prefetch(next + (size_t)r * lda + at, _MM_HINT_T1);
}

INLINE __m512 load_floats(const int type, const void* from) {
  if (type == GGML_TYPE_F32) return _mm512_loadu_ps(from);
  if (type == GGML_TYPE_F16) return load_half(from);
  const __m512i upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(upper, 16));
}

INLINE void multiply_column(const int type, const char* a, const char* next, size_t lda, const char* b, int64_t k, float* c) {
  const size_t bytes = LANES * (type == GGML_TYPE_F32 ? sizeof(float) : sizeof(uint16_t));
  __m512 sum[COLUMNS][ROWS];
  UNROLL
  for (int r = 0; r < ROWS; r++) sum[0][r] = _mm512_setzero_ps();
  for (size_t at = 0; at < (size_t)k / LANES * bytes; at += bytes) {
    // In F32 each line would be prefetched for one multiplication, and such matrices are small.
    if (type != GGML_TYPE_F32 && at % LINE == 0) prefetch_rows(next, lda, at);
    const __m512 x = load_floats(type, b + at);
    UNROLL
    for (int r = 0; r < ROWS; r++)
      sum[0][r] = _mm512_fmadd_ps(load_floats(type, a + (size_t)r * lda + at), x, sum[0][r]);
  }
  store_sums(1, sum, c, 0);
}

KERNEL static void column_f32(const char* a, const char* next, size_t lda, const void* b, int64_t k, float* c) {
  multiply_column(GGML_TYPE_F32, a, next, lda, b, k, c);
}

KERNEL static void column_f16(const char* a, const char* next, size_t lda, const void* b, int64_t k, float* c) {
  multiply_column(GGML_TYPE_F16, a, next, lda, b, k, c);
}

KERNEL static void column_bf16(const char* a, const char* next, size_t lda, const void* b, int64_t k, float* c) {
  multiply_column(GGML_TYPE_BF16, a, next, lda, b, k, c);
}

// Where ggml has the instruction for pairs of 16-bit floats, it adds up pairs.
KERNEL_BF16 static void column_bf16_pairs(const char* a, const char* next, size_t lda, const void* b, int64_t k, float* c) {
  __m512 sum[COLUMNS][ROWS];
  UNROLL
  for (int r = 0; r < ROWS; r++) sum[0][r] = _mm512_setzero_ps();
  for (size_t at = 0; at < (size_t)k * sizeof(uint16_t); at += LINE) {
    prefetch_rows(next, lda, at);
    const __m512bh x = (__m512bh)_mm512_loadu_si512((const char*)b + at);
    UNROLL
    for (int r = 0; r < ROWS; r++)
      sum[0][r] = _mm512_dpbf16_ps(sum[0][r], (__m512bh)_mm512_loadu_si512(a + (size_t)r * lda + at), x);
  }
  store_sums(1, sum, c, 0);
}

bool puna_multiply_float_column(const struct ggml_compute_params* params, int64_t m, int64_t k, const void* A,
                                int64_t lda, const void* B, void* C, int type) {
  const bool pairs = type == GGML_TYPE_BF16 && ggml.has_avx512_bf16();
  // ggml multiplies other shapes by dot products, whatever the number of columns.
  if (m % ROWS || k % (pairs ? 2 * LANES : LANES)) return false;
  column_fn* const multiply_rows = pairs                    ? column_bf16_pairs
                                   : type == GGML_TYPE_BF16 ? column_bf16
                                   : type == GGML_TYPE_F16  ? column_f16
                                                            : column_f32;
  const size_t row = (size_t)lda * (type == GGML_TYPE_F32 ? sizeof(float) : sizeof(uint16_t));
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  const bool claim = B == params->wdata;
  const int64_t chunks = (m + ROWS_PER_CHUNK - 1) / ROWS_PER_CHUNK;
  for (int64_t chunk = params->ith; chunk < chunks;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t end = (chunk + 1) * ROWS_PER_CHUNK;
    for (int64_t i = chunk * ROWS_PER_CHUNK; i < end && i < m; i += ROWS) {
      const int64_t next = i + ROWS < end ? i + ROWS : end + (params->nth - 1) * ROWS_PER_CHUNK;
      multiply_rows((const char*)A + (size_t)i * row, next < m ? (const char*)A + (size_t)next * row : NULL, row, B, k,
                    (float*)C + i);
    }
  }
  return true;
}
