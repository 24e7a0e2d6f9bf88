// Quantization of activations to Q8_0, Q8_1 and Q8_K, before each product, in the place of quantize_row_q8_0,
// quantize_row_q8_1 and quantize_row_q8_K.
//
// A block's scale is its largest magnitude divided by 127 (with a sign in Q8_K), and each value is multiplied by the
// inverse and rounded. There are no sums of floats, so the bits depend on the rounding of the scale and the values
// alone. ggml computes one block of Q8_0 at a time, with two divisions for each, and Q8_K in plain C. Here sixteen
// blocks of Q8_0 get their scales together (lane = block), and Q8_K is vectorized. Q8_1 is Q8_0 with the sum of each
// block's values times the scale. Rare inputs whose result would be laborious to have with the same bits go to ggml's
// own functions: NaN, for Q8_1 and Q8_K also infinity and scales without an inverse, and for Q8_K blocks of zeros.
#include "matmul_k_quants.h"

enum {
  BLOCK = 32,         // values in a block of Q8_0
  SUPER_BLOCK = 256,  // values in a block of Q8_K

  INFINITY_BITS = 0x7f800000,  // the bits of infinity, above which there are only NaNs
  TINY_BITS = 0x0d800000,      // the bits of 2^-100: 127 divided by it is far from infinity
};

// Returns the larger magnitudes of 32 values in 16 lanes, as bits. Read as integers they have the order of the values.
INLINE __m512i larger_magnitudes(const float* x) {
  const __m512i magnitude = _mm512_set1_epi32(INT32_MAX);
  const __m512i a = _mm512_and_si512(_mm512_loadu_si512(x), magnitude);
  return _mm512_max_epi32(a, _mm512_and_si512(_mm512_loadu_si512(x + 16), magnitude));
}

// Returns the maxima of pairs of neighboring 128-bit lanes: those of `a`, then those of `b`.
INLINE __m512i max_lane_pairs(__m512i a, __m512i b) {
  return _mm512_max_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// Returns four candidates for the maximum of each of four blocks, each block's in a 128-bit lane of its own. If only n
// < 4 blocks are left, the first stands in for the others.
INLINE __m512i four_block_maxima(const float* x, int n) {
  const __m512i a = larger_magnitudes(x), b = larger_magnitudes(x + (n > 1 ? BLOCK : 0));
  const __m512i c = larger_magnitudes(x + (n > 2 ? 2 * BLOCK : 0)), d = larger_magnitudes(x + (n > 3 ? 3 * BLOCK : 0));
  return max_lane_pairs(max_lane_pairs(a, b), max_lane_pairs(c, d));
}

// Transposes the lanes' dwords: from dword i of each 128-bit lane after the other, to lane after lane, or back.
INLINE __m512i transpose_lanes(__m512i x) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
}

// Returns the maximum of each of n blocks in lane = block.
INLINE __m512i block_maxima(const float* x, int n) {
  const __m512i a = four_block_maxima(x, n);
  const __m512i b = n > 4 ? four_block_maxima(x + 4 * BLOCK, n - 4) : a;
  const __m512i c = n > 8 ? four_block_maxima(x + 8 * BLOCK, n - 8) : a;
  const __m512i d = n > 12 ? four_block_maxima(x + 12 * BLOCK, n - 12) : a;
  const __m512i ab = _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_max_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return transpose_lanes(_mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)));
}

// Returns 32 values times `scale` as 16-bit integers, in an order that transpose_lanes sets right once they are bytes.
// Values that are too large become -128 as in ggml, by way of the smallest integer.
INLINE __m512i scaled_words(const float* x, float scale) {
  const __m512 by = _mm512_set1_ps(scale);
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), by));
  return _mm512_packs_epi32(low, _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), by)));
}

// Returns the sums of the bytes of both halves, in the first lane of each half.
INLINE __m512i sums_of_halves(__m512i bytes) {
  const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
  const __m512i eights = _mm512_add_epi32(fours, _mm512_shuffle_epi32(fours, _MM_PERM_CDAB));
  const __m512i quarters = _mm512_add_epi32(eights, _mm512_shuffle_epi32(eights, _MM_PERM_BADC));
  return _mm512_add_epi32(quarters, _mm512_shuffle_i32x4(quarters, quarters, 0xb1));
}

// Quantizes up to 16 blocks, whose scales are found together. False if ggml's function is to be used.
INLINE bool blocks_of_32(const bool with_sums, const float* x, uint8_t* y, int n) {
  const size_t bytes_of_block = with_sums ? Q8_1_BYTES : Q8_0_BYTES, values_at = with_sums ? Q8_1_AT : Q8_0_AT;
  const __m512i bits = block_maxima(x, n);
  if (_mm512_cmpgt_epi32_mask(bits, _mm512_set1_epi32(with_sums ? INFINITY_BITS - 1 : INFINITY_BITS))) return false;
  const __mmask16 filled = _mm512_test_epi32_mask(bits, bits);
  if (with_sums && _mm512_mask_cmplt_epi32_mask(filled, bits, _mm512_set1_epi32(TINY_BITS))) return false;
  const __m512 max = _mm512_castsi512_ps(bits), most = _mm512_set1_ps(127), scale = _mm512_div_ps(max, most);
  float inverse[16];
  uint16_t d[16], s[16];
  int32_t sums[16] = {0};
  _mm512_storeu_ps(inverse, _mm512_maskz_div_ps(filled, most, max));
  _mm256_storeu_si256((void*)d, _mm512_cvtps_ph(scale, _MM_FROUND_TO_NEAREST_INT));
  for (int i = 0; i < n; i += 2) {
    // An odd block at the end is computed in both halves, and written twice with the same bytes.
    const int j = i + 1 < n ? i + 1 : i;
    uint8_t *first = y + i * bytes_of_block, *second = y + j * bytes_of_block;
    const __m512i both =
        _mm512_packs_epi16(scaled_words(x + i * BLOCK, inverse[i]), scaled_words(x + j * BLOCK, inverse[j]));
    const __m512i bytes = transpose_lanes(both);
    _mm256_storeu_si256((void*)(second + values_at), _mm512_extracti64x4_epi64(bytes, 1));
    _mm256_storeu_si256((void*)(first + values_at), _mm512_castsi512_si256(bytes));
    memcpy(first, &d[i], sizeof *d);
    memcpy(second, &d[j], sizeof *d);
    if (!with_sums) continue;
    const __m512i sum = sums_of_halves(bytes);
    sums[i] = _mm_cvtsi128_si32(_mm512_castsi512_si128(sum));
    sums[j] = _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 2));
  }
  if (!with_sums) return true;
  const __m512 scaled = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_loadu_si512(sums)));
  _mm256_storeu_si256((void*)s, _mm512_cvtps_ph(scaled, _MM_FROUND_TO_NEAREST_INT));
  for (int i = 0; i < n; i++) memcpy(y + i * bytes_of_block + Q8_1_SUM_AT, &s[i], sizeof *s);
  return true;
}

KERNEL static void q8_0(const float* x, uint8_t* y, int64_t blocks) {
  while (blocks > 0) {
    const int n = blocks < 16 ? (int)blocks : 16;
    if (!blocks_of_32(false, x, y, n)) ggml.quantize_row_q8_0(x, y, n * BLOCK);
    x += n * BLOCK, y += n * Q8_0_BYTES, blocks -= n;
  }
}

KERNEL static void q8_1(const float* x, uint8_t* y, int64_t blocks) {
  while (blocks > 0) {
    const int n = blocks < 16 ? (int)blocks : 16;
    if (!blocks_of_32(true, x, y, n)) ggml.quantize_row_q8_1(x, y, n * BLOCK);
    x += n * BLOCK, y += n * Q8_1_BYTES, blocks -= n;
  }
}

// Returns the value with the largest magnitude of 256, the first of several, since their signs may differ. Zero if
// ggml's function is to be used.
INLINE float signed_maximum(const float* x) {
  __m512i above = _mm512_setzero_si512(), below = above;  // the largest positive and negative magnitudes
  for (int i = 0; i < SUPER_BLOCK; i += 16) {
    const __m512i bits = _mm512_loadu_si512(x + i);
    above = _mm512_max_epi32(above, bits);
    below = _mm512_max_epu32(below, bits);
  }
  const int32_t most = _mm512_reduce_max_epi32(above);
  const uint32_t sign = 1u << 31, bits = _mm512_reduce_max_epu32(below);
  const int32_t least = bits & sign ? (int32_t)(bits ^ sign) : 0;
  const int32_t magnitude = most > least ? most : least;
  if (magnitude >= INFINITY_BITS || magnitude < TINY_BITS) return 0;
  float value;
  memcpy(&value, &magnitude, sizeof value);
  // Two values of opposite sign have the largest magnitude: ggml takes the sign of the first.
  if (most == least)
    while (*x != value && *x != -value) x++;
  return most > least || (most == least && *x > 0) ? value : -value;
}

// Returns the sums of pairs of neighboring 128-bit lanes: those of `a`, then those of `b`.
INLINE __m512i add_lane_pairs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

INLINE bool block_q8_k(const float* x, uint8_t* y) {
  const float max = signed_maximum(x);
  if (max == 0) return false;
  const float scale = -127 / max, d = 1 / scale;
  memcpy(y, &d, sizeof d);
  __m512i sums[4];  // sums of four values each
  UNROLL
  for (int i = 0; i < 4; i++) {
    const float* from = x + i * 2 * BLOCK;
    const __m512i bytes = _mm512_packs_epi16(scaled_words(from, scale), scaled_words(from + BLOCK, scale));
    sums[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    _mm512_storeu_si512(y + Q8_K_AT + i * 2 * BLOCK, transpose_lanes(bytes));
  }
  const __m512i ab = add_lane_pairs(sums[0], sums[1]), cd = add_lane_pairs(sums[2], sums[3]);
  _mm256_storeu_si256((void*)(y + Q8_K_SUMS_AT), _mm512_cvtepi32_epi16(add_lane_pairs(ab, cd)));
  return true;
}

KERNEL static void q8_k(const float* x, uint8_t* y, int64_t blocks) {
  for (; blocks > 0; blocks--, x += SUPER_BLOCK, y += Q8_K_BYTES)
    if (!block_q8_k(x, y)) ggml.quantize_row_q8_K(x, y, SUPER_BLOCK);
}

void quantize_row_q8_0(const float* x, void* y, int64_t k) {
  if (puna_avx512)
    q8_0(x, y, k / BLOCK);
  else
    ggml.quantize_row_q8_0(x, y, k);
}

void quantize_row_q8_1(const float* x, void* y, int64_t k) {
  if (puna_avx512)
    q8_1(x, y, k / BLOCK);
  else
    ggml.quantize_row_q8_1(x, y, k);
}

void quantize_row_q8_K(const float* x, void* y, int64_t k) {
  if (puna_avx512)
    q8_k(x, y, k / SUPER_BLOCK);
  else
    ggml.quantize_row_q8_K(x, y, k);
}
