// A barrier at which threads sleep, for prompts, in the place of OpenMP's behind ggml_barrier.
//
// ggml's threads meet some hundred times in a graph. OpenMP's barrier spins for ten milliseconds before it sleeps. Where
// other programs compute as well, the thread that is waited for may have lost its core, and the one that spins keeps its
// own from everyone, at nearly every barrier anew. Here a thread spins for as long as threads that have their cores may
// differ, and then sleeps until the last one wakes it.
//
// A graph meets here if it has many columns. It computes with a thread pool of this file's, made by ggml's public
// functions, and the address of the pool tells the barrier's own state. With OpenMP a pool is memory and has no threads.
// Nothing of ggml's private structs is read or written. The threads that meet are those of the OpenMP team, which
// may be fewer than were asked for: OpenMP says how many. A ggml without OpenMP, and a graph that brings a
// pool of its own, keep ggml's barrier. All threads of a graph decide alike, since they ask the same of the same team and pool.
//
// `arrived` counts the threads that have come. `round` is even while no thread sleeps, and the last thread adds two to it.
// The protocol of sleep:
//
// - A thread reads `round` before it adds itself to `arrived`. Until then the round cannot end, so what it reads is
//   the round in which it takes part.
// - A thread that is about to sleep sets the lowest bit of `round`, in one step with the comparison that the round has
//   not ended, and asks the system to sleep while the word is that odd number. The system compares and goes to sleep as one
//   step too. Later rounds cannot end without this thread, so the word never has that number again while it waits.
// - The last thread exchanges `round` for the next even number. If the old one was odd it wakes everyone. A thread that
//   set the bit before is asleep and is woken, or finds another number and does not sleep. A thread that comes to set it
//   afterwards sees that the round has ended. So no wakeup is lost, and no thread is woken without need.
//
// A thread releases its earlier writes by its addition to `arrived`. The last thread acquires all of them, and
// releases them by `round`. Aborting needs nothing more: ggml's first thread writes where to stop before a barrier, all
// read it behind the barrier, leave the graph at the same node and meet once more. ggml_graph_compute returns when all
// threads have left the OpenMP region, so afterwards no thread reads the state, and the next graph may have it. A child of a
// fork finds the states of the parent's graphs taken, and uses the others.
//
// One token takes a few milliseconds, and there a thread that sleeps may wait longer for its core than the barrier
// would have lasted. So graphs with few columns keep OpenMP's barrier, or that of their plan (decode.c).
#define _GNU_SOURCE
#include "barrier.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "panel.h"

enum {
  GRAPHS = 4,      // graphs that are computed so at once, at most; others meet at ggml's barrier
  MANY = 32,       // columns
  SPINS = 20000,   // 0.7 ms on Zen 4
  SPINS_FEW = 500  // where more threads compute than there are processors
};

static struct meeting {
  atomic_bool taken;
  int room;  // threads for which the pool was made
  int spins;
  _Atomic(struct ggml_threadpool*) pool;
  _Alignas(LINE) atomic_int arrived;
  _Alignas(LINE) atomic_uint round;
} meetings[GRAPHS];
static atomic_int computing;  // threads of all these graphs
static atomic_long graphs, sleeps;

long puna_sleeping_graphs(void) { return atomic_load(&graphs); }
long puna_barrier_sleeps(void) { return atomic_load(&sleeps); }

static bool has_many_columns(const struct ggml_cgraph* graph) {
  for (int i = 0; i < graph->n_nodes; i++)
    if (graph->nodes[i]->op == GGML_OP_MUL_MAT) return graph->nodes[i]->ne[1] >= MANY;
  return false;
}

// Returns how often a thread looks before it sleeps, while so many compute.
static int patience(int threads) {
  cpu_set_t processors;
  // A system with more processors than the set has room for has enough of them.
  const bool enough = sched_getaffinity(0, sizeof processors, &processors) || threads <= CPU_COUNT(&processors);
  return enough ? SPINS : SPINS_FEW;
}

static void make_pool(struct meeting* m, int threads) {
  struct ggml_threadpool_params params;
  struct ggml_threadpool* old = atomic_load(&m->pool);
  // ggml may use the memory of the old pool for one of its own, which must not be found here.
  atomic_store(&m->pool, NULL);
  ggml.threadpool_free(old);
  ggml.threadpool_params_init(&params, threads);
  atomic_store(&m->pool, ggml.threadpool_new(&params));
  m->room = threads;
}

HIDDEN int puna_compute_sleeping(struct ggml_cgraph* graph, struct ggml_cplan* cplan) {
  struct meeting* m = NULL;
  if (puna_avx512 && ggml.omp_threads && cplan->n_threads > 1 && !cplan->threadpool && has_many_columns(graph))
    for (int i = 0; i < GRAPHS && !m; i++)
      if (!atomic_exchange(&meetings[i].taken, true)) m = meetings + i;
  if (!m) return ggml.graph_compute(graph, cplan);
  if (m->room < cplan->n_threads) make_pool(m, cplan->n_threads);
  m->spins = patience(atomic_fetch_add(&computing, cplan->n_threads) + cplan->n_threads);
  struct ggml_cplan own = *cplan;
  own.threadpool = atomic_load(&m->pool);
  atomic_fetch_add_explicit(&graphs, 1, memory_order_relaxed);
  const int status = ggml.graph_compute(graph, &own);
  atomic_fetch_sub(&computing, cplan->n_threads);
  atomic_store(&m->taken, false);
  return status;
}

static bool is_over(struct meeting* m, unsigned round) {
  return (atomic_load_explicit(&m->round, memory_order_acquire) & ~1u) != round;
}

static void meet(struct meeting* m, int threads) {
  const unsigned round = atomic_load_explicit(&m->round, memory_order_relaxed) & ~1u;
  if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) + 1 == threads) {
    atomic_store_explicit(&m->arrived, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&m->round, round + 2, memory_order_acq_rel) & 1)
      syscall(SYS_futex, &m->round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    return;
  }
  for (int i = 0; i < m->spins; i++) {
    if (is_over(m, round)) return;
    _mm_pause();
  }
  while (!is_over(m, round)) {
    unsigned awake = round;
    atomic_compare_exchange_strong(&m->round, &awake, round | 1);
    atomic_fetch_add_explicit(&sleeps, 1, memory_order_relaxed);
    syscall(SYS_futex, &m->round, FUTEX_WAIT_PRIVATE, round | 1, NULL, NULL, 0);
  }
}

HIDDEN void puna_meet_all(struct ggml_threadpool* pool) {
  for (struct meeting* m = meetings; m < meetings + GRAPHS; m++)
    if (atomic_load_explicit(&m->pool, memory_order_relaxed) == pool) {
      // Less than two: there is no other thread, or the team is another OpenMP library's, whose barrier ggml knows.
      const int threads = ggml.omp_threads();
      if (threads < 2) break;
      meet(m, threads);
      return;
    }
  ggml.barrier(pool);
}
