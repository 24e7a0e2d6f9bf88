// Products of quantized matrices with AVX-512-VNNI, in the place of llamafile_sgemm.
//
// Sixteen rows of A make a strip, whose values are turned so that each lane has its own row (panel.h). Strips are
// multiplied with columns by matmul_q8_0.h, matmul_q4_0.h or, for K types, matmul_k_quants.h, all with the bits of ggml's own kernels. Here
// the work is divided among threads.
#include <stdatomic.h>
#include <stdlib.h>

#include "matmul_q4_0.h"
#include "matmul_k_quants.h"

enum {
  COLUMN_BYTES = 512 << 10,  // of columns used with one strip after the other: they stay in the second level cache
  CHUNKS = 6,                // that each thread should claim, so that one that is held up leaves its share to others
};

static atomic_long calls;
static bool alone;

// Up to SUPER_GROUP columns get the bits that each has as the only one. ggml multiplies columns of K types differently
// the more there are. Not while a model runs.
void puna_set_batch_invariant(bool wanted) { alone = wanted; }

long puna_matmul_calls(void) { return atomic_load(&calls); }

typedef void product_fn(const struct strip*, const struct columns*, size_t n, void* packed);

KERNEL static void product_q8_0(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  lane_product(GGML_TYPE_Q8_0, s, x, n, packed);
}

KERNEL static void product_q5_0(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  lane_product(GGML_TYPE_Q5_0, s, x, n, packed);
}

KERNEL static void product_q4_0(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  row_product(GGML_TYPE_Q4_0, s, x, n, packed);
}

KERNEL static void product_q4_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  repacked_product(GGML_TYPE_Q4_K, s, x, n, packed);
}

KERNEL static void alone_q4_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  lone_product(GGML_TYPE_Q4_K, s, x, n, packed);
}

KERNEL static void product_q5_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q5_K, s, x, n, packed);
}

KERNEL static void few_q5_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  lane_super_product(GGML_TYPE_Q5_K, s, x, n);
}

KERNEL static void product_q6_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  tiled_product(GGML_TYPE_Q6_K, s, x, n, packed);
}

KERNEL static void few_q6_k(const struct strip* s, const struct columns* x, size_t n, void* packed) {
  (void)packed;
  lane_super_product(GGML_TYPE_Q6_K, s, x, n);
}

KERNEL static void prepare_q8_0(const uint8_t* b, size_t blocks, int32_t offset, struct side* out) {
  const __m256i unsign = _mm256_set1_epi8((char)offset);
  for (size_t k = 0; k < blocks; k++, b += Q8_0_BYTES) {
    uint16_t d;
    memcpy(&d, b, sizeof d);
    out[k].d = _cvtsh_ss(d);
    const __m256i values = _mm256_loadu_si256((const void*)(b + Q8_0_AT));
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsign, values);
    _mm256_storeu_si256((void*)out[k].offset, _mm256_sub_epi32(_mm256_setzero_si256(), sums));
  }
}

// For whole rows: the lanes' offsets together.
KERNEL static void prepare_rows(const uint8_t* b, size_t blocks, int32_t offset, struct side* out) {
  prepare_q8_0(b, blocks, offset, out);
  for (size_t k = 0; k < blocks; k++)
    for (int q = 1; q < DWORDS; q++) out[k].offset[0] += out[k].offset[q];
}

KERNEL static void prepare_q8_k(const uint8_t* b, size_t blocks, int32_t offset, struct side* out) {
  for (size_t k = 0; k < blocks; k++, b += Q8_K_BYTES, out += 2) {
    const __m512i sums = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const void*)(b + Q8_K_SUMS_AT)));
    const __m512i offsets = _mm512_mullo_epi32(sums, _mm512_set1_epi32(-offset));
    _mm256_storeu_si256((void*)out[0].offset, _mm512_castsi512_si256(offsets));
    _mm256_storeu_si256((void*)out[1].offset, _mm512_extracti64x4_epi64(offsets, 1));
  }
}

typedef void prepare_fn(const uint8_t* b, size_t blocks, int32_t offset, struct side* out);

struct format {
  product_fn* product;
  size_t packed;        // bytes of a turned block of a strip
  int column;           // the type of columns,
  size_t column_bytes;  // bytes of a block of them,
  size_t sides;         // and how many sides such a block has
  prepare_fn* prepare;  // makes them
};

// How to multiply m rows with n columns. Only where the bits are those of ggml's kernel for that case.
static bool find_format(int type, int64_t m, int64_t n, struct format* out) {
  const size_t block = PACKED * sizeof(__m512i), super = sizeof(struct super);
  const bool each = alone && n <= SUPER_GROUP, few = each || n < TILED_COLUMNS;
  switch (type) {
    case GGML_TYPE_Q8_0:
      *out = (struct format){product_q8_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, prepare_q8_0};
      return true;
    case GGML_TYPE_Q5_0:
      *out = (struct format){product_q5_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, prepare_q8_0};
      return true;
    case GGML_TYPE_Q4_0:
      *out = (struct format){product_q4_0, block, GGML_TYPE_Q8_0, Q8_0_BYTES, 1, prepare_rows};
      return m % REPACKED_ROWS == 0;
    case GGML_TYPE_Q4_K:
      *out = (struct format){each ? alone_q4_k : product_q4_k, super, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL};
      return m % REPACKED_ROWS == 0;
    case GGML_TYPE_Q5_K:
      *out = (struct format){few ? few_q5_k : product_q5_k, super, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL};
      return true;
    case GGML_TYPE_Q6_K:
      *out = few ? (struct format){few_q6_k, super, GGML_TYPE_Q8_K, Q8_K_BYTES, 0, NULL}
                 : (struct format){product_q6_k, super, GGML_TYPE_Q8_K, Q8_K_BYTES, 2, prepare_q8_k};
      return true;
    default: return false;
  }
}

// mul_mat tries ggml's kernel for tiles first: where that is not to be used, false says that it must go on.
bool ggml_compute_forward_mul_mat_tiled(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  struct format format;
  const struct ggml_tensor *a = dst->src[0], *b = dst->src[1];
  if (puna_avx512 && b->type == GGML_TYPE_F32 && find_format(a->type, a->ne[1], b->ne[1], &format) &&
      format.column == GGML_TYPE_Q8_K)
    return false;
  return ggml.mul_mat_tiled(params, dst);
}

// Memory of a thread for a product, kept for the next ones. Threads must agree on who computes what: so none of them
// may give up alone.
static void* scratch(size_t bytes) {
  static _Thread_local struct {
    size_t bytes;
    void* at;
  } kept;
  if (kept.bytes < bytes) {
    free(kept.at);
    kept.at = aligned_alloc(sizeof(__m512i), (bytes + sizeof(__m512i) - 1) / sizeof(__m512i) * sizeof(__m512i));
    if (!kept.at) abort();
    kept.bytes = bytes;
  }
  return kept.at;
}

// A strip from row `first` on of m.
KERNEL static struct strip strip_at(const uint8_t* a, size_t bytes, int64_t first, int64_t m) {
  const int last = m - first >= ROWS ? ROWS - 1 : (int)(m - first - 1);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i row = _mm512_min_epi32(lane, _mm512_set1_epi32(last));
  struct strip s = {.offset = _mm512_mullo_epi32(row, _mm512_set1_epi32((int)bytes)),
                    .keep = (__mmask16)((2u << last) - 1)};
  for (int r = 0; r < ROWS; r++) s.row[r] = a + (size_t)(first + (r < last ? r : last)) * bytes;
  return s;
}

struct work {  // in strips of rows, and in columns of whole k
  int64_t width, across, strips, per, down;
};

// How many columns at once, and how many strips in a chunk.
static struct work divide(int64_t m, int64_t n, int64_t column_bytes, int threads, bool claim) {
  struct work w;
  w.width = COLUMN_BYTES / column_bytes / SUPER_GROUP * SUPER_GROUP;
  if (w.width < SUPER_GROUP) w.width = SUPER_GROUP;
  const int64_t parts = (n + w.width - 1) / w.width;
  const int64_t even = ((n + parts - 1) / parts + SUPER_GROUP - 1) / SUPER_GROUP * SUPER_GROUP;
  if (even < w.width) w.width = even;
  w.across = (n + w.width - 1) / w.width;
  w.strips = (m + ROWS - 1) / ROWS;
  w.per = claim ? w.strips / (threads * CHUNKS) : (w.strips + threads - 1) / threads;
  if (claim && w.per > 2 * CHUNKS) w.per = 2 * CHUNKS;
  if (w.per < 1) w.per = 1;
  w.down = (w.strips + w.per - 1) / w.per;
  return w;
}

bool llamafile_sgemm(const struct ggml_compute_params* params, int64_t m, int64_t n, int64_t k, const void* A,
                     int64_t lda, const void* B, int64_t ldb, void* C, int64_t ldc, int Atype, int Btype, int Ctype) {
  const size_t bytes = block_bytes(Atype);
  struct format f;
  if (!puna_avx512 || Ctype != GGML_TYPE_F32 || m < 1 || n < 1 || k < 1 || !find_format(Atype, m, n, &f) ||
      Btype != f.column || lda * (int64_t)bytes * ROWS > INT32_MAX)
    return ggml.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, Atype, Btype, Ctype);

  // mul_mat has just set the counter of chunks when it passes the columns at wdata, and only then.
  const bool claim = B == params->wdata;
  const size_t column = (size_t)ldb * f.column_bytes, sides = (size_t)k * f.sides;
  const int64_t used = (int64_t)((size_t)k * f.column_bytes + sides * sizeof(struct side));  // of a column
  const struct work w = divide(m, n, used, params->nth, claim);
  uint8_t* packed = scratch((size_t)k * f.packed + (size_t)w.width * sides * sizeof(struct side));
  struct side* side = (struct side*)(packed + (size_t)k * f.packed);
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);

  int64_t prepared = -1;
  for (int64_t chunk = params->ith; chunk < w.down * w.across;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t j = chunk / w.down * w.width;
    const int64_t columns = n - j < w.width ? n - j : w.width;
    const uint8_t* b = (const uint8_t*)B + (size_t)j * column;
    if (j != prepared && f.prepare)
      for (size_t i = 0; i < (size_t)columns; i++)
        f.prepare(b + i * column, (size_t)k, block_offset(Atype), side + i * sides);
    prepared = j;
    const int64_t first = chunk % w.down * w.per;
    for (int64_t i = first; i < w.strips && i < first + w.per; i++) {
      const struct strip s = strip_at(A, (size_t)lda * bytes, i * ROWS, m);
      const struct columns x = {b, column, side, (size_t)k, (float*)C + j * ldc + i * ROWS, (size_t)ldc};
      f.product(&s, &x, (size_t)columns, packed);
    }
  }
  return true;
}
