// Evaluating a batch and drawing the next tokens in one call.
//
// Between two batches all threads wait, and the model's weights have driven everything else out of the caches. Python's
// calls into a library are many lines of code and data, each of which comes from memory then. So a step whose tokens
// are drawn as usual makes one call instead of ten. The functions are llama.cpp's, in the order in which Python would call
// them, so the tokens are the same.
#include "ggml_abi.h"
#include "llama_abi.h"

struct draw {
  struct draw* next;
  void* chain;
  struct llama_token_data* candidates;  // room for `room` of them; NULL: the chain gets the whole vocabulary
  int32_t room, vocabulary, count, group;  // see puna_top_candidates
  int32_t row;    // of the logits
  int32_t token;  // the result; below zero until there is one
};

struct order {  // see the functions that set it
  int32_t tiled_from, batch_invariant, prompts_count;
  const int32_t* prompts;
};

int puna_top_candidates(const float* logits, int size, int k, int rows, struct llama_token_data* out, int room);
void puna_set_tiled_from(int rows);
void puna_set_batch_invariant(int sequences);
void puna_set_prompts(const int32_t* slots, int count);

static int32_t draw_one(const struct llama_functions* llama, void* context, const struct draw* d) {
  const int found = d->candidates ? puna_top_candidates(llama->logits(context, d->row), d->vocabulary, d->count,
                                                        d->group, d->candidates, d->room)
                                  : 0;
  if (!found) return llama->sample(d->chain, context, d->row);
  struct llama_token_data_array array = {d->candidates, (size_t)found, -1, false};
  llama->apply(d->chain, &array);
  const int32_t token = array.data[array.selected].id;
  llama->accept(d->chain, token);
  return token;
}

// Evaluates a batch in an order of additions, and draws a token for each of the list if that succeeds. Returns what
// llama_decode does.
int puna_step(const struct llama_functions* llama, void* context, const struct llama_batch* batch,
              const struct order* order, struct draw* draws) {
  puna_set_tiled_from(order->tiled_from);
  puna_set_batch_invariant(order->batch_invariant);
  puna_set_prompts(order->prompts, order->prompts_count);
  const int status = llama->decode(context, *batch);
  // The next image to be encoded gets ggml's order.
  puna_set_tiled_from(INT32_MAX);
  puna_set_batch_invariant(0);
  puna_set_prompts(NULL, -1);
  for (struct draw* d = draws; d && !status; d = d->next) d->token = draw_one(llama, context, d);
  return status;
}
