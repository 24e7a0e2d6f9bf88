// Barriers at which threads sleep (barrier.c).
#pragma once

#include "ggml_abi.h"

// Computes a graph like ggml_graph_compute; its threads sleep at barriers if it has many columns.
HIDDEN int puna_compute_sleeping(struct ggml_cgraph* graph, struct ggml_cplan* cplan);
// The barrier of all threads of a graph, in the place of ggml_barrier.
HIDDEN void puna_meet_all(struct ggml_threadpool* pool);
