// Products of quantized matrices with AVX-512-VNNI, in the place of llamafile_sgemm.
//
// Sixteen rows of A make a strip, whose values are turned so that each lane has its own row (unpack.h); lanes.h multiplies
// strips with columns. Here the work is divided among threads.
#include <stdatomic.h>
#include <stdlib.h>

#include "lanes.h"

enum {
  COLUMN_BYTES = 512 << 10,  // of columns used with one strip after the other: they stay in the second level cache
  CHUNKS = 8,                // that each thread should claim, so that one that is held up leaves its share to others
};

extern bool puna_avx512;
static atomic_long calls;

long puna_matmul_calls(void) { return atomic_load(&calls); }

typedef void product_fn(const struct strip *, const struct columns *, size_t n, __m512i *packed);

KERNEL static void product_q8_0(const struct strip *s, const struct columns *x, size_t n, __m512i *packed) {
  lane_product(GGML_TYPE_Q8_0, s, x, n, packed);
}

KERNEL static void product_q5_0(const struct strip *s, const struct columns *x, size_t n, __m512i *packed) {
  lane_product(GGML_TYPE_Q5_0, s, x, n, packed);
}

// Memory of a thread for a product, kept for the next ones. Threads must agree on who computes what: so none of them may
// give up alone.
static void *scratch(size_t bytes) {
  static _Thread_local struct {
    size_t bytes;
    void *at;
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
KERNEL static struct strip strip_at(const uint8_t *a, size_t bytes, int64_t first, int64_t m) {
  struct strip s;
  int32_t offset[ROWS];
  const int64_t rows = m - first >= ROWS ? ROWS : m - first;
  for (int64_t r = 0; r < ROWS; r++) {
    s.row[r] = a + (first + r < m ? first + r : m - 1) * (int64_t)bytes;
    offset[r] = (int32_t)(s.row[r] - s.row[0]);
  }
  s.offset = _mm512_loadu_si512(offset);
  s.keep = (__mmask16)((1u << rows) - 1);
  return s;
}

KERNEL static void prepare(const uint8_t *b, size_t blocks, int32_t offset, struct side *out) {
  const __m256i unsign = _mm256_set1_epi8((char)offset);
  for (size_t k = 0; k < blocks; k++, b += Q8_0_BYTES) {
    uint16_t d;
    memcpy(&d, b, sizeof d);
    out[k].d = _cvtsh_ss(d);
    const __m256i values = _mm256_loadu_si256((const void *)(b + Q8_0_AT));
    const __m256i sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsign, values);
    _mm256_storeu_si256((void *)out[k].offset, _mm256_sub_epi32(_mm256_setzero_si256(), sums));
  }
}

struct work {  // in strips of rows, and in columns of whole k
  int64_t width, across, strips, per, down;
};

// How many columns at once, and how many strips in a chunk.
static struct work divide(int64_t m, int64_t n, int64_t k, int threads, bool claim) {
  struct work w;
  w.width = COLUMN_BYTES / (k * (int64_t)(Q8_0_BYTES + sizeof(struct side))) / GROUP * GROUP;
  if (w.width < GROUP) w.width = GROUP;
  const int64_t parts = (n + w.width - 1) / w.width;
  const int64_t even = ((n + parts - 1) / parts + GROUP - 1) / GROUP * GROUP;
  if (even < w.width) w.width = even;
  w.across = (n + w.width - 1) / w.width;
  w.strips = (m + ROWS - 1) / ROWS;
  w.per = claim ? w.strips / (threads * CHUNKS) : (w.strips + threads - 1) / threads;
  if (claim && w.per > 2 * CHUNKS) w.per = 2 * CHUNKS;
  if (w.per < 1) w.per = 1;
  w.down = (w.strips + w.per - 1) / w.per;
  return w;
}

bool llamafile_sgemm(const struct ggml_compute_params *params, int64_t m, int64_t n, int64_t k, const void *A,
                     int64_t lda, const void *B, int64_t ldb, void *C, int64_t ldc, int Atype, int Btype, int Ctype) {
  const size_t bytes = block_bytes(Atype);
  const bool known = (Atype == GGML_TYPE_Q8_0 || Atype == GGML_TYPE_Q5_0) && Btype == GGML_TYPE_Q8_0;
  if (!puna_avx512 || !known || Ctype != GGML_TYPE_F32 || m < 1 || n < 1 || k < 1 ||
      lda * (int64_t)bytes * ROWS > INT32_MAX)
    return ggml.sgemm(params, m, n, k, A, lda, B, ldb, C, ldc, Atype, Btype, Ctype);

  // mul_mat has just set the counter of chunks when it passes the columns at wdata, and only then.
  const bool claim = B == params->wdata;
  const struct work w = divide(m, n, k, params->nth, claim);
  __m512i *packed = scratch((size_t)k * (PACKED * sizeof(__m512i) + (size_t)w.width * sizeof(struct side)));
  struct side *side = (struct side *)(packed + k * PACKED);
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);

  product_fn *product = Atype == GGML_TYPE_Q8_0 ? product_q8_0 : product_q5_0;
  int64_t prepared = -1;
  for (int64_t chunk = params->ith; chunk < w.down * w.across;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t j = chunk / w.down * w.width;
    const int64_t columns = n - j < w.width ? n - j : w.width;
    const uint8_t *b = (const uint8_t *)B + (size_t)j * ldb * Q8_0_BYTES;
    if (j != prepared)
      for (int64_t i = 0; i < columns; i++)
        prepare(b + i * ldb * Q8_0_BYTES, (size_t)k, block_offset(Atype), side + i * k);
    prepared = j;
    const int64_t first = chunk % w.down * w.per;
    for (int64_t i = first; i < w.strips && i < first + w.per; i++) {
      const struct strip s = strip_at(A, (size_t)lda * bytes, i * ROWS, m);
      const struct columns x = {b, (size_t)ldb * Q8_0_BYTES, side, (size_t)k, (float *)C + j * ldc + i * ROWS, (size_t)ldc};
      product(&s, &x, (size_t)columns, packed);
    }
  }
  return true;
}
