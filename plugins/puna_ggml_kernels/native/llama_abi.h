// The structs of llama.h that the kernels touch. tests/plugins/ggml_kernels/abi.c compares them with the installed header.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct llama_batch {
  int32_t n_tokens;
  int32_t* token;
  float* embd;
  int32_t *pos, *n_seq_id, **seq_id;
  int8_t* logits;
};

struct llama_token_data {
  int32_t id;
  float logit, p;
};

struct llama_token_data_array {
  struct llama_token_data* data;
  size_t size;
  int64_t selected;
  bool sorted;
};

// llama.cpp's functions, which Python looks up. A chain is a chain of samplers.
struct llama_functions {
  int32_t (*decode)(void* context, struct llama_batch);
  float* (*logits)(void* context, int32_t row);
  int32_t (*sample)(void* chain, void* context, int32_t row);
  void (*apply)(void* chain, struct llama_token_data_array*);
  void (*accept)(void* chain, int32_t token);
};
