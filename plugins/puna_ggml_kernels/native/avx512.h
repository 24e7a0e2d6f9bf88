// Which instructions the kernels use: each function says so itself, since the library is compiled for any processor.
#pragma once

#include <immintrin.h>

#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma,prfchw")))
#define INLINE KERNEL static inline __attribute__((always_inline))
