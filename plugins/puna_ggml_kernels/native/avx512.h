// The instruction sets of the kernels. Each function names them itself, with KERNEL, since the library is compiled for
// any x86-64 processor and asks at run time (puna_supported in entry.c).
#pragma once

#include <immintrin.h>

#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma,prfchw")))
#define KERNEL_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,f16c,fma,prfchw")))
#define INLINE KERNEL static inline __attribute__((always_inline))

enum { LINE = 64 };  // bytes of a cache line
