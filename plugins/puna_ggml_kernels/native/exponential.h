// The exponential of numbers that are not positive, eight at once, with the bits of glibc's expf, by which ggml turns
// scores into weights in decoding.
#pragma once

#include "avx512.h"

static const double exp2_32nds[32] = {
    0x1p+0,
    0x1.059b0d3158574p+0,
    0x1.0b5586cf9890fp+0,
    0x1.11301d0125b51p+0,
    0x1.172b83c7d517bp+0,
    0x1.1d4873168b9aap+0,
    0x1.2387a6e756238p+0,
    0x1.29e9df51fdee1p+0,
    0x1.306fe0a31b715p+0,
    0x1.371a7373aa9cbp+0,
    0x1.3dea64c123422p+0,
    0x1.44e086061892dp+0,
    0x1.4bfdad5362a27p+0,
    0x1.5342b569d4f82p+0,
    0x1.5ab07dd485429p+0,
    0x1.6247eb03a5585p+0,
    0x1.6a09e667f3bcdp+0,
    0x1.71f75e8ec5f74p+0,
    0x1.7a11473eb0187p+0,
    0x1.82589994cce13p+0,
    0x1.8ace5422aa0dbp+0,
    0x1.93737b0cdc5e5p+0,
    0x1.9c49182a3f09p+0,
    0x1.a5503b23e255dp+0,
    0x1.ae89f995ad3adp+0,
    0x1.b7f76f2fb5e47p+0,
    0x1.c199bdd85529cp+0,
    0x1.cb720dcef9069p+0,
    0x1.d5818dcfba487p+0,
    0x1.dfc97337b9b5fp+0,
    0x1.ea4afa2a490dap+0,
    0x1.f50765b6e454p+0,
};

// Returns exp(x) for -104 <= x <= 0 or NaN. As in glibc's expf, exp(x) = 2^(n/32) exp(r): a table has 2^(n/32), and the
// same polynomial in double precision has exp(r), so that the result has the same bits.
INLINE __m256 expf_nonpositive8(__m256 x) {
  const __m512d wide = _mm512_cvtps_pd(x), per = _mm512_set1_pd(0x1.71547652b82fep+5), shift = _mm512_set1_pd(0x1.8p52);
  const __m512d shifted = _mm512_fmadd_pd(wide, per, shift);  // n is in its low bits
  const __m512d r = _mm512_fmsub_pd(wide, per, _mm512_sub_pd(shifted, shift));
  const __m512i n = _mm512_castpd_si512(shifted);
  const double* t = exp2_32nds;
  const __m512d low = _mm512_permutex2var_pd(_mm512_loadu_pd(t), n, _mm512_loadu_pd(t + 8));
  const __m512d high = _mm512_permutex2var_pd(_mm512_loadu_pd(t + 16), n, _mm512_loadu_pd(t + 24));
  const __m512d root = _mm512_mask_mov_pd(low, _mm512_test_epi64_mask(n, _mm512_set1_epi64(16)), high);
  const __m512i power = _mm512_add_epi64(_mm512_castpd_si512(root), _mm512_slli_epi64(_mm512_srai_epi64(n, 5), 52));
  const __m512d cube = _mm512_set1_pd(0x1.c6af84b912394p-20), square = _mm512_set1_pd(0x1.ebfce50fac4f3p-13);
  const __m512d linear = _mm512_fmadd_pd(_mm512_set1_pd(0x1.62e42ff0c52d6p-6), r, _mm512_set1_pd(1));
  const __m512d y = _mm512_fmadd_pd(_mm512_fmadd_pd(cube, r, square), _mm512_mul_pd(r, r), linear);
  return _mm512_cvtpd_ps(_mm512_mul_pd(y, _mm512_castsi512_pd(power)));
}
