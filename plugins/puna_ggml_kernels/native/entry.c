// Where kernels.py switches the kernels on. Until then, and on other processors, every call goes on to ggml.
#include "ggml_abi.h"

struct ggml_functions ggml;
bool puna_avx512;

// The size that ggml_tensor_overhead() must tell of a tensor beside its 32 bytes in a context, or the mirror is wrong.
size_t puna_tensor_size(void) { return sizeof(struct ggml_tensor); }

void puna_set_functions(const struct ggml_functions* functions) { ggml = *functions; }

// Returns whether this processor can run the kernels; with `on` false ggml's own take over again. Not while a model
// runs.
bool puna_switch(bool on) {
  __builtin_cpu_init();
  const bool able = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
  puna_avx512 = on && able;
  return able;
}
