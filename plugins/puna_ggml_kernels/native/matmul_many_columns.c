// Products with many columns, as in prefill, in the order of additions of matmul_q4_0.h: one sum for each row.
//
// With many columns the time goes to the integer dot products, if all operands are near. On Zen 4 one of them starts per
// cycle; a block of 32 values of sixteen rows and a column takes eight, and a multiplication and a fused one, which
// share their units. So ten cycles are the bound, and the arrangement of the data has to keep everything else away:
//
// - columns are packed as well, eight at a time: a tile holds, block by block, the values of its columns, their scales
//   and their compensation, so that a multiplication reads one run of memory with constant offsets. Each thread packs
//   all columns for itself, once for a product: sharing them would take another barrier, and saves less than it costs;
// - both are cut into strips of at most STRIP_BLOCKS blocks: the strip of a panel stays near the first-level cache
//   while the tiles of columns pass by, and the strip of STRIP_TILES tiles in the second-level cache while the panels
//   pass by.
//
// Between two strips the sums rest in C. They are 32-bit floats in either place, so strips change no bit.
#include <stdlib.h>

#include "matmul_many_columns.h"
#include "matmul_q4_0.h"

enum {
  TILE_COLUMNS = 8,
  STRIP_BLOCKS = 64,   // 36 KiB of a packed panel: half as many with twice the sums in C take longer
  STRIP_TILES = 16,    // 320 KiB of packed columns
  PASS_COLUMNS = 512,  // columns that are packed at a time, so that memory is bounded
};

struct tile_block {  // a block of each column of a tile
  int32_t values[TILE_COLUMNS][DWORDS];
  union {
    int32_t compensation[TILE_COLUMNS];  // as in column_terms, for all dwords together
    float sum[TILE_COLUMNS];
  };
  float d[TILE_COLUMNS];
};

// Returns the sums of the lanes of eight registers, one in each lane.
INLINE __m256i sums_of_lanes(const __m256i x[8]) {
  const __m256i a = _mm256_hadd_epi32(_mm256_hadd_epi32(x[0], x[1]), _mm256_hadd_epi32(x[2], x[3]));
  const __m256i b = _mm256_hadd_epi32(_mm256_hadd_epi32(x[4], x[5]), _mm256_hadd_epi32(x[6], x[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

INLINE __m256 load_eight_f16(const uint8_t* const at[TILE_COLUMNS]) {
  uint16_t h[TILE_COLUMNS];
  UNROLL
  for (int i = 0; i < TILE_COLUMNS; i++) memcpy(&h[i], at[i], sizeof h[i]);
  return _mm256_cvtph_ps(_mm_loadu_si128((const void*)h));
}

// Packs blocks `first` to first + count of n <= TILE_COLUMNS columns. A tile that is not full repeats its last column.
INLINE void pack_tile(const int type, const uint8_t* b, size_t bytes, size_t n, size_t first, size_t count,
                      struct tile_block* out) {
  const __m256i unsign = _mm256_set1_epi8((char)value_offset(type));
  for (size_t k = first; k < first + count; k++, out++) {
    const uint8_t *at[TILE_COLUMNS], *sums[TILE_COLUMNS];
    __m256i dots[TILE_COLUMNS];
    UNROLL
    for (size_t i = 0; i < TILE_COLUMNS; i++) {
      at[i] = b + (i < n ? i : n - 1) * bytes + k * (size_t)column_bytes(type);
      sums[i] = at[i] + Q8_1_SUM_AT;
      const __m256i values = _mm256_loadu_si256((const void*)(at[i] + column_values_at(type)));
      _mm256_storeu_si256((void*)out->values[i], values);
      if (!has_minimum(type)) dots[i] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsign, values);
    }
    _mm256_storeu_ps(out->d, load_eight_f16(at));
    if (has_minimum(type))
      _mm256_storeu_ps(out->sum, load_eight_f16(sums));
    else
      _mm256_storeu_si256((void*)out->compensation, _mm256_sub_epi32(_mm256_setzero_si256(), sums_of_lanes(dots)));
  }
}

// Multiplies the strip of a panel with the strip of a tile, of which n columns are stored. Every strip but the `first`
// one goes on with the sums in c.
INLINE void multiply_tile(const bool minima, const __m512i* a, const struct tile_block* b, size_t blocks,
                          bool first, float* c, size_t ldc, size_t n, __mmask16 rows) {
  __m512 sum[TILE_COLUMNS];
  UNROLL
  for (size_t i = 0; i < TILE_COLUMNS; i++)
    sum[i] = first || i >= n ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(rows, c + i * ldc);
  for (size_t k = 0; k < blocks; k++, a += minima ? PACKED_WITH_MINIMUM : PACKED_REGISTERS, b++) {
    __m512i dot[TILE_COLUMNS];
    UNROLL
    for (int i = 0; i < TILE_COLUMNS; i++) dot[i] = minima ? _mm512_setzero_si512() : _mm512_set1_epi32(b->compensation[i]);
    UNROLL
    for (int q = 0; q < DWORDS; q++) {
      const __m512i values = a[q];
      UNROLL
      for (int i = 0; i < TILE_COLUMNS; i++)
        dot[i] = _mm512_dpbusd_epi32(dot[i], values, _mm512_set1_epi32(b->values[i][q]));
    }
    const __m512 scale = _mm512_castsi512_ps(a[DWORDS]);
    UNROLL
    for (int i = 0; i < TILE_COLUMNS; i++) {
      sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]), _mm512_mul_ps(scale, _mm512_set1_ps(b->d[i])), sum[i]);
      if (minima) sum[i] = _mm512_fmadd_ps(_mm512_castsi512_ps(a[DWORDS + 1]), _mm512_set1_ps(b->sum[i]), sum[i]);
    }
  }
  UNROLL
  for (size_t i = 0; i < TILE_COLUMNS; i++)
    if (i < n) _mm512_mask_storeu_ps(c + i * ldc, rows, sum[i]);
}

KERNEL static void multiply_tile_without(const __m512i* a, const struct tile_block* b, size_t blocks, bool first,
                                         float* c, size_t ldc, size_t n, __mmask16 rows) {
  multiply_tile(false, a, b, blocks, first, c, ldc, n, rows);
}

KERNEL static void multiply_tile_with_minima(const __m512i* a, const struct tile_block* b, size_t blocks, bool first,
                                             float* c, size_t ldc, size_t n, __mmask16 rows) {
  multiply_tile(true, a, b, blocks, first, c, ldc, n, rows);
}

INLINE void pack_strip(const int type, const struct panel* panel, size_t first, size_t count, __m512i* out) {
  for (size_t k = first; k < first + count; k++, out += packed_registers(type)) pack_block(type, panel, k, out);
}

struct strip_functions {
  bool minima;
  void (*pack_panel)(const struct panel*, size_t first, size_t count, __m512i* out);
  void (*pack_tile)(const uint8_t* b, size_t bytes, size_t n, size_t first, size_t count, struct tile_block* out);
};

#define STRIP_FUNCTIONS(name, type)                                                                                   \
  KERNEL static void pack_panel_##name(const struct panel* panel, size_t first, size_t count, __m512i* out) {         \
    pack_strip(type, panel, first, count, out);                                                                       \
  }                                                                                                                   \
  KERNEL static void pack_tile_##name(const uint8_t* b, size_t bytes, size_t n, size_t first, size_t count,           \
                                      struct tile_block* out) {                                                       \
    pack_tile(type, b, bytes, n, first, count, out);                                                                  \
  }
STRIP_FUNCTIONS(q4_0, GGML_TYPE_Q4_0)
STRIP_FUNCTIONS(iq4_nl, GGML_TYPE_IQ4_NL)
STRIP_FUNCTIONS(mxfp4, GGML_TYPE_MXFP4)
STRIP_FUNCTIONS(q8_0, GGML_TYPE_Q8_0)
STRIP_FUNCTIONS(q5_0, GGML_TYPE_Q5_0)
STRIP_FUNCTIONS(q4_1, GGML_TYPE_Q4_1)
STRIP_FUNCTIONS(q5_1, GGML_TYPE_Q5_1)

// Finds the functions for a type with one sum for each row.
static bool find_strip_functions(int type, struct strip_functions* out) {
  switch (type) {
    case GGML_TYPE_Q4_0:
      *out = (struct strip_functions){false, pack_panel_q4_0, pack_tile_q4_0};
      return true;
    case GGML_TYPE_IQ4_NL:
      *out = (struct strip_functions){false, pack_panel_iq4_nl, pack_tile_iq4_nl};
      return true;
    case GGML_TYPE_MXFP4:
      *out = (struct strip_functions){false, pack_panel_mxfp4, pack_tile_mxfp4};
      return true;
    case GGML_TYPE_Q8_0:
      *out = (struct strip_functions){false, pack_panel_q8_0, pack_tile_q8_0};
      return !puna_exact;
    case GGML_TYPE_Q5_0:
      *out = (struct strip_functions){false, pack_panel_q5_0, pack_tile_q5_0};
      return !puna_exact;
    case GGML_TYPE_Q4_1:
      *out = (struct strip_functions){true, pack_panel_q4_1, pack_tile_q4_1};
      return !puna_exact;
    case GGML_TYPE_Q5_1:
      *out = (struct strip_functions){true, pack_panel_q5_1, pack_tile_q5_1};
      return !puna_exact;
    default:
      return false;
  }
}

bool puna_takes_many_columns(int type) {
  struct strip_functions f;
  return find_strip_functions(type, &f);
}

// Multiplies the panels first..end with all columns, which are packed in `b`. `a` has room for a strip of each.
KERNEL static void multiply_strips(const struct many_columns* s, const struct strip_functions* f, int64_t first, int64_t end, const struct tile_block* b,
                                   __m512i* a) {
  const size_t tiles = ((size_t)s->n + TILE_COLUMNS - 1) / TILE_COLUMNS, k = (size_t)s->k;
  const size_t strips = (k + STRIP_BLOCKS - 1) / STRIP_BLOCKS, length = (k + strips - 1) / strips;
  for (size_t from = 0; from < k; from += length) {
    const size_t count = k - from < length ? k - from : length;
    for (int64_t i = first; i < end; i++) {
      const struct panel panel = panel_at(s->a, s->row, i * PANEL_ROWS, s->m);
      f->pack_panel(&panel, from, count, a + (size_t)(i - first) * length * PACKED_WITH_MINIMUM);
    }
    for (size_t t = 0; t < tiles; t += STRIP_TILES)
      for (int64_t i = first; i < end; i++) {
        const struct panel panel = panel_at(s->a, s->row, i * PANEL_ROWS, s->m);
        for (size_t u = t; u < tiles && u < t + STRIP_TILES; u++) {
          const size_t j = u * TILE_COLUMNS, left = (size_t)s->n - j;
          (f->minima ? multiply_tile_with_minima : multiply_tile_without)(a + (size_t)(i - first) * length * PACKED_WITH_MINIMUM, b + from * tiles + u * count, count,
                        from == 0, s->c + (int64_t)j * s->ldc + i * PANEL_ROWS, (size_t)s->ldc,
                        left < TILE_COLUMNS ? left : TILE_COLUMNS, panel.store_mask);
        }
      }
  }
}

// Packs all columns, strip by strip and tile by tile.
static void pack_columns(const struct many_columns* s, const struct strip_functions* f, struct tile_block* out) {
  const size_t tiles = ((size_t)s->n + TILE_COLUMNS - 1) / TILE_COLUMNS, k = (size_t)s->k;
  const size_t strips = (k + STRIP_BLOCKS - 1) / STRIP_BLOCKS, length = (k + strips - 1) / strips;
  for (size_t from = 0; from < k; from += length) {
    const size_t count = k - from < length ? k - from : length;
    for (size_t t = 0; t < tiles; t++, out += count) {
      const size_t j = t * TILE_COLUMNS, left = (size_t)s->n - j;
      f->pack_tile(s->b + j * s->column, s->column, left < TILE_COLUMNS ? left : TILE_COLUMNS, from, count, out);
    }
  }
}

// Multiplies this thread's share of a product with many columns.
void puna_multiply_many_columns(const struct ggml_compute_params* params, const struct many_columns* all, bool claim) {
  struct strip_functions f;
  if (!find_strip_functions(all->type, &f)) abort();
  const int64_t panels = (all->m + PANEL_ROWS - 1) / PANEL_ROWS;
  const int64_t per_chunk = puna_panels_per_chunk(panels, params->nth, claim);
  const int64_t chunks = (panels + per_chunk - 1) / per_chunk, passes = (all->n + PASS_COLUMNS - 1) / PASS_COLUMNS;
  const int64_t per_pass = ((all->n + passes - 1) / passes + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
  const size_t a_bytes = (size_t)per_chunk * STRIP_BLOCKS * PACKED_WITH_MINIMUM * sizeof(__m512i);
  __m512i* a = puna_thread_scratch(a_bytes + (size_t)(per_pass / TILE_COLUMNS * all->k) * sizeof(struct tile_block));
  struct tile_block* b = (struct tile_block*)((uint8_t*)a + a_bytes);
  int64_t packed = -1;
  for (int64_t chunk = params->ith; chunk < chunks * passes;
       chunk = claim ? ggml.chunk_add(params->threadpool, 1) : chunk + params->nth) {
    const int64_t j = chunk / chunks * per_pass, first = chunk % chunks * per_chunk;
    if (j >= all->n) break;
    struct many_columns s = *all;
    s.b += (size_t)j * s.column;
    s.c += j * s.ldc;
    s.n = s.n - j < per_pass ? s.n - j : per_pass;
    if (j != packed) pack_columns(&s, &f, b);
    packed = j;
    multiply_strips(&s, &f, first, first + per_chunk < panels ? first + per_chunk : panels, b, a);
  }
}
