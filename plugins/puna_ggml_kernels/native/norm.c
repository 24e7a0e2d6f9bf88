// Rows divided by the root of their mean square (RMS norm), times weights, in the place of
// ggml_compute_forward_rms_norm_mul_fused.
//
// ggml adds up the squares of a row in double precision, one after the other, so that each addition waits for the one
// before. Here sixteen rows are added up side by side, after a transposition that gives each lane a row. Each row keeps
// ggml's order, hence its bits. Meanwhile the cache lines of the results are prefetched for writing: another core wrote
// them last.
#include <stdatomic.h>

#include "attention.h"
#include "decode.h"

static atomic_long calls;

long puna_norm_calls(void) { return atomic_load(&calls); }

// Returns the factors of 16 rows of n values. Squares are rounded to 32 bits before they become doubles, as in
// ggml.
INLINE __m512 row_scales(const float* const row[LANES], float* const out[LANES], int64_t n, float eps) {
  double sum[LANES];
  __m512d low = _mm512_setzero_pd(), high = low;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    __m512 x[LANES];
    for (int r = 0; r < LANES; r++) {
      x[r] = _mm512_loadu_ps(row[r] + i);
      x[r] = _mm512_mul_ps(x[r], x[r]);
      __builtin_prefetch(out[r] + i, 1);
    }
    transpose16x16(x);
    for (int c = 0; c < LANES; c++) {
      low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(x[c])));
      high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x[c], 1)));
    }
  }
  _mm512_storeu_pd(sum, low);
  _mm512_storeu_pd(sum + LANES / 2, high);
  for (; i < n; i++)
    for (int r = 0; r < LANES; r++) sum[r] += (double)(row[r][i] * row[r][i]);
  const __m512d count = _mm512_set1_pd((double)n);
  const __m256 first = _mm512_cvtpd_ps(_mm512_div_pd(_mm512_loadu_pd(sum), count));
  const __m256 second = _mm512_cvtpd_ps(_mm512_div_pd(_mm512_loadu_pd(sum + LANES / 2), count));
  const __m512 mean = _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
  return _mm512_div_ps(_mm512_set1_ps(1), _mm512_sqrt_ps(_mm512_add_ps(mean, _mm512_set1_ps(eps))));
}

INLINE void multiply(const float* x, float scale, const float* weights, int64_t n, float* y) {
  const __m512 by = _mm512_set1_ps(scale);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), by), _mm512_loadu_ps(weights + i)));
  for (; i < n; i++) y[i] = x[i] * scale * weights[i];
}

// One row of a token that is decoded: its sum is one chain of additions, during which weights are prefetched.
KERNEL float puna_norm_scale(const float* x, int64_t n, float eps, struct weight_stream* stream) {
  double sum = 0;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    float square[LANES];
    const __m512 values = _mm512_loadu_ps(x + i);
    _mm512_storeu_ps(square, _mm512_mul_ps(values, values));
    prefetch_weights(stream, 1);
    for (int j = 0; j < LANES; j++) sum += (double)square[j];
  }
  for (; i < n; i++) sum += (double)(x[i] * x[i]);
  const float mean = (float)(sum / (double)n);
  return 1 / sqrtf(mean + eps);
}

KERNEL void puna_norm_row(const float* x, float scale, const float* weights, int64_t n, float* y) {
  multiply(x, scale, weights, n, y);
}

KERNEL static void norm_rows(const struct ggml_tensor* x, const float* weights, float eps, struct ggml_tensor* dst,
                             int64_t first, int64_t step, int64_t i2, int64_t i3) {
  const int64_t n = x->ne[0];
  for (; first < x->ne[1]; first += LANES * step) {
    const float* row[LANES];
    float scale[LANES], *out[LANES];
    for (int r = 0; r < LANES; r++) {
      const int64_t i = first + r * step;
      // Lanes past the last row repeat the first one. Their results are not stored.
      row[r] = (const float*)tensor_row(x, i < x->ne[1] ? i : first, i2, i3);
      out[r] = (float*)tensor_row(dst, i < x->ne[1] ? i : first, i2, i3);
    }
    _mm512_storeu_ps(scale, row_scales(row, out, n, eps));
    for (int r = 0; r < LANES && first + r * step < x->ne[1]; r++) multiply(row[r], scale[r], weights, n, out[r]);
  }
}

void ggml_compute_forward_rms_norm_mul_fused(const struct ggml_compute_params* params, struct ggml_tensor* norm,
                                             struct ggml_tensor* dst) {
  if (puna_planned_norm(params, norm, dst)) return;
  const struct ggml_tensor* x = norm->src[0];
  const struct ggml_tensor* w = dst->src[0] == norm ? dst->src[1] : dst->src[0];
  const bool floats = x->type == GGML_TYPE_F32 && w->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) &&
                      w->nb[0] == sizeof(float) && dst->nb[0] == sizeof(float);
  const bool weights = w->ne[0] == x->ne[0] && w->ne[1] == 1 && w->ne[2] == 1 && w->ne[3] == 1;
  // A thread with a single row gains nothing.
  if (!puna_avx512 || !floats || !weights || params->ith + params->nth >= x->ne[1]) {
    ggml.rms_norm_mul(params, norm, dst);
    return;
  }
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  float eps;
  memcpy(&eps, norm->op_params, sizeof eps);
  for (int64_t i3 = 0; i3 < x->ne[3]; i3++)
    for (int64_t i2 = 0; i2 < x->ne[2]; i2++) norm_rows(x, w->data, eps, dst, params->ith, params->nth, i2, i3);
}
