// The switch of the kernels, which loader.py sets.
//
// The library's functions take the place of ggml's as soon as llama.cpp is loaded, whether they can run or not. So each
// of them asks `puna_avx512` first, and calls ggml's own function while that is false.
#include "ggml_abi.h"

struct ggml_functions ggml;
bool puna_avx512;
int puna_batch_invariant;
bool puna_exact = true;

// The digest of these sources: a library that was built from others may fit neither the loader nor ggml.
#ifndef PUNA_SOURCES
#define PUNA_SOURCES ""
#endif
const char* puna_sources(void) { return PUNA_SOURCES; }

// The size that ggml must give a tensor, or ggml_abi.h mirrors another version.
size_t puna_tensor_size(void) { return sizeof(struct ggml_tensor); }

void puna_set_functions(const struct ggml_functions* functions) { ggml = *functions; }

// Tells if this processor, and the system, can run the kernels. AVX-512 implies F16C.
bool puna_supported(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

// Switches the kernels on, where they can run, or off. Not while a model runs.
void puna_enable(bool on) { puna_avx512 = on && puna_supported(); }

// Chooses if every product has ggml's bits. Otherwise each type has one order of additions for any number of columns: see
// matmul.c. Not while a model runs.
void puna_set_exact(bool exact) { puna_exact = exact; }

// Gives each row of the next batches the bits that it has in a batch with one row for each of so many sequences; 0
// leaves the order of additions to the size of a batch, as in ggml. Not while a model runs.
void puna_set_batch_invariant(int sequences) { puna_batch_invariant = sequences; }
