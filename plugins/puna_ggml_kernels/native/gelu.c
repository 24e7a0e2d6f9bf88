// GELU, the activation of BERT-like models, in the place of ggml_compute_forward_unary.
//
// ggml rounds a number to 16 bits and looks its GELU up in a table of all 16-bit floats, one number after the other.
// Here sixteen numbers are rounded, looked up and converted together.
#include <stdatomic.h>

#include "attention.h"

enum {
  UNARY_GELU = 8,    // GGML_UNARY_OP_GELU
  LAST_INDEX = 0xffff,  // of the table; a gather reads 32 bits at an index, and would read past the end
};

static atomic_long calls;

long puna_gelu_calls(void) { return atomic_load(&calls); }

KERNEL static void gelu(const float* x, float* y, int64_t from, int64_t to) {
  const __m512 ten = _mm512_set1_ps(10);
  const __m512i last = _mm512_set1_epi32(ggml.gelu[LAST_INDEX]);
  for (int64_t i = from; i < to; i += LANES) {
    const __mmask16 there = (__mmask16)(to - i < LANES ? (1u << (to - i)) - 1 : 0xffff);
    const __m512 in = _mm512_maskz_loadu_ps(there, x + i);
    const __m512i index = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(in, _MM_FROUND_TO_NEAREST_INT));
    const __mmask16 inside = _mm512_cmpneq_epi32_mask(index, _mm512_set1_epi32(LAST_INDEX));
    const __m512i found = _mm512_mask_i32gather_epi32(last, inside, index, ggml.gelu, sizeof(uint16_t));
    __m512 out = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(found));
    // Beyond ten the result is the number itself or zero, without rounding.
    out = _mm512_mask_mov_ps(out, _mm512_cmp_ps_mask(in, ten, _CMP_GE_OQ), in);
    const __mmask16 none = _mm512_cmp_ps_mask(in, _mm512_sub_ps(_mm512_setzero_ps(), ten), _CMP_LE_OQ);
    _mm512_mask_storeu_ps(y + i, there, _mm512_mask_mov_ps(out, none, _mm512_setzero_ps()));
  }
}

// Returns whether the numbers follow each other without gaps.
static bool packed(const struct ggml_tensor* t) {
  size_t bytes = sizeof(float);
  for (int i = 0; i < 4; i++) {
    if (t->nb[i] != bytes) return false;
    bytes *= (size_t)t->ne[i];
  }
  return t->type == GGML_TYPE_F32;
}

void ggml_compute_forward_unary(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct ggml_tensor* x = dst->src[0];
  if (!puna_avx512 || dst->op_params[0] != UNARY_GELU || !packed(x) || !packed(dst)) {
    ggml.unary(params, dst);
    return;
  }
  if (params->ith == 0) atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  const int64_t count = x->ne[0] * x->ne[1] * x->ne[2] * x->ne[3];
  const int64_t share = (count / params->nth + LANES) / LANES * LANES, from = share * params->ith;
  gelu(x->data, dst->data, from, from + share < count ? from + share : count);
}
