// Decoding one token of one sequence with few barriers, and with memory always at work.
//
// ggml's threads meet at a barrier after each node of a graph, and once more inside each product. A layer of a llama has
// 24 barriers and ten nodes that take a microsecond, during which memory is idle; in a model of 135M parameters that
// is a quarter of the time. Each token reads all weights, so memory sets the limit. This file does two things about it:
//
// - It plans a graph before ggml computes it. A thread computes the same share of the rows of a product, and of the
//   additions, gates, rotations and copies to the KV cache that follow, so that no barrier is needed between them. Norms
//   and the quantization of columns are computed by each thread for itself. A barrier is left where a thread reads
//   what others wrote, or overwrites what others may still read: five for a layer of a llama.
// - It prefetches. Each thread has a stream of its shares of all matrices (decode.h). The stream runs ahead of the
//   products, and goes on during everything else, above all at barriers.
//
// ggml walks through the nodes as before and calls its functions, of which this file replaces some. A replaced function
// that has a place in the plan says whether the barrier after it is needed, and ggml_barrier does as it was told. Every other
// node, and every barrier after it, is ggml's. Each value is computed by the same operations as in ggml, so the bits
// are the same.
#define _GNU_SOURCE
#include "decode.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "barrier.h"
#include "thread_scratch.h"

enum {
  PLANS = 4,       // graphs that are computed at once, at most; others are not planned
  ACCESSES = 64,   // accesses to memory between two barriers
  LOOK_AHEAD = 8,  // nodes after a product among which its rotation is looked for
  UNIT = 16,       // rows of a product that one thread computes, or a multiple
  COLUMN_TYPES = 3,
  SPINS = 4000,  // rounds of waiting before a thread offers its core to others
  SWIGLU = 2,
  COMPUTED = 16,  // the flag of nodes that are to be computed
};

enum role { ROLE_GGML, ROLE_NOTHING, ROLE_NORM, ROLE_PRODUCT, ROLE_ADD, ROLE_GLU, ROLE_ROPE, ROLE_STORE };

struct split {  // how the elements of a row are divided: in multiples of `unit`, the larger shares first or last
  int64_t unit;
  bool up;
};

struct step {
  enum role role;
  bool meet;  // whether a barrier follows
  struct split split;
};

struct plan {
  atomic_bool taken;
  const void* wdata;  // tells the computation that runs
  uint64_t uid, run;
  struct ggml_tensor** nodes;
  int count, room, matrices;
  struct step* steps;
  int* matrix;  // the indices of the products
  _Alignas(LINE) atomic_int arrived;
  _Alignas(LINE) atomic_uint round;
};

static struct plan plans[PLANS];
static atomic_ulong runs;
static atomic_long planned;

long puna_planned_graphs(void) { return atomic_load(&planned); }

struct column {
  const void* of;  // the floats of which it was made
  struct thread_buffer data;
};

static _Thread_local struct {
  uint64_t run;
  struct plan* plan;
  int cursor;
  enum { GGMLS_BARRIER, NO_BARRIER, OWN_BARRIER } next;
  const void* norm_of;  // where the result of a norm is stored that this thread has for itself
  struct thread_buffer norm, scratch;
  struct column columns[COLUMN_TYPES];
  struct weight_stream stream;
} self;

static int64_t elements(const struct ggml_tensor* t) { return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; }

static int64_t share(int64_t n, struct split s, int ith, int nth) {
  const int64_t units = (n + s.unit - 1) / s.unit, at = (units * ith + (s.up ? nth - 1 : 0)) / nth * s.unit;
  return at < n ? at : n;
}

// ---- planning ------------------------------------------------------------------------------------------------------

enum access_mode { READ_ALL, READ_SHARE, WRITE_SHARE, WRITE_ONE };

struct access {
  const char *begin, *end;
  enum access_mode mode;
  struct split split;
};

struct stage {  // the nodes since the last barrier
  struct access list[ACCESSES];
  int count, last;
};

static bool is_row(const struct ggml_tensor* t) {  // floats without gaps
  return t && t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float) && t->nb[1] == (size_t)t->ne[0] * sizeof(float) &&
         t->ne[2] == 1 && t->ne[3] == 1;
}

static bool same_shape(const struct ggml_tensor* a, const struct ggml_tensor* b) {
  return a->ne[0] == b->ne[0] && a->ne[1] == b->ne[1] && a->ne[2] == b->ne[2] && a->ne[3] == b->ne[3];
}

static bool is_view(int op) {
  return op == GGML_OP_NONE || op == GGML_OP_RESHAPE || op == GGML_OP_VIEW || op == GGML_OP_PERMUTE ||
         op == GGML_OP_TRANSPOSE;
}

static enum role role_of(const struct ggml_tensor* t) {
  const struct ggml_tensor *a = t->src[0], *b = t->src[1];
  int column;
  switch (t->op) {
    case GGML_OP_MUL_MAT:
      return is_row(t) && is_row(b) && t->ne[1] == 1 && b->ne[1] == 1 && a->ne[2] == 1 && a->ne[3] == 1 && !a->extra &&
                     t->op_params[1] == 0 && a->nb[1] * (size_t)a->ne[1] >= LINE &&
                     puna_column_type((int)a->type, a->ne[1], &column)
                 ? ROLE_PRODUCT
                 : ROLE_GGML;
    case GGML_OP_ADD:
      return is_row(t) && is_row(a) && is_row(b) && same_shape(t, a) && same_shape(t, b) && t->ne[1] == 1 ? ROLE_ADD
                                                                                                       : ROLE_GGML;
    case GGML_OP_GLU:
      return is_row(t) && is_row(a) && is_row(b) && same_shape(t, a) && same_shape(t, b) && t->ne[1] == 1 &&
                     t->op_params[0] == SWIGLU
                 ? ROLE_GLU
                 : ROLE_GGML;
    case GGML_OP_ROPE:
      return is_row(t) && is_row(a) && same_shape(t, a) && t->ne[0] % UNIT == 0 ? ROLE_ROPE : ROLE_GGML;
    case GGML_OP_SET_ROWS:
      return is_row(a) && a->ne[1] == 1 && t->type == GGML_TYPE_F16 && t->nb[0] == 2 && t->ne[2] == 1 &&
                     t->ne[3] == 1 && b->ne[0] == 1 && (b->nb[0] == sizeof(int64_t) || b->nb[0] == sizeof(int32_t))
                 ? ROLE_STORE
                 : ROLE_GGML;
    default:
      return ROLE_GGML;
  }
}

// Returns whether ggml may compute nodes i and i + 1 as one norm of one row with weights. If it does not, it calls
// none of the functions here for them.
static bool is_norm(struct ggml_tensor** nodes, int count, int i) {
  if (nodes[i]->op != GGML_OP_RMS_NORM || i + 1 == count || nodes[i + 1]->op != GGML_OP_MUL) return false;
  const struct ggml_tensor *norm = nodes[i], *t = nodes[i + 1], *w = t->src[0] == norm ? t->src[1] : t->src[0];
  // One thread stores the result, which must not overwrite what others still read.
  return (t->src[0] == norm || t->src[1] == norm) && is_row(norm->src[0]) && is_row(t) && is_row(w) &&
         same_shape(w, t) && same_shape(norm, t) && t->ne[1] == 1 && t->data != norm->src[0]->data;
}

static const struct ggml_tensor* behind_views(const struct ggml_tensor* t) {
  while ((t->op == GGML_OP_RESHAPE || t->op == GGML_OP_VIEW) && t->src[0] && t->src[0]->data == t->data) t = t->src[0];
  return t;
}

// Returns how the rows of product i are divided. The heads of a rotation that follows stay whole.
static struct split split_of_product(struct ggml_tensor** nodes, int count, int i, bool* up) {
  for (int j = i + 1; j < count && j <= i + LOOK_AHEAD; j++) {
    if (role_of(nodes[j]) != ROLE_ROPE) continue;
    const struct ggml_tensor* from = behind_views(nodes[j]->src[0]);
    if (from->op == GGML_OP_ADD) from = behind_views(from->src[0]);
    if (from != nodes[i]) continue;
    // Where the heads do not divide evenly, another thread gets more of each next matrix.
    *up = !*up;
    return (struct split){nodes[j]->ne[0], *up};
  }
  return (struct split){UNIT, false};
}

static bool same_split(struct split a, struct split b) { return a.unit == b.unit && a.up == b.up; }

static bool conflict(const struct access* a, const struct access* b) {
  if (a->end <= b->begin || b->end <= a->begin) return false;
  const bool reads = a->mode <= READ_SHARE && b->mode <= READ_SHARE;
  const bool shares = (a->mode == READ_SHARE || a->mode == WRITE_SHARE) &&
                      (b->mode == READ_SHARE || b->mode == WRITE_SHARE) && a->begin == b->begin && a->end == b->end &&
                      same_split(a->split, b->split);
  return !reads && !shares;
}

static struct access access_to(const struct ggml_tensor* t, enum access_mode mode, struct split split) {
  const size_t bytes = t->type == GGML_TYPE_F32 ? (size_t)elements(t) * sizeof(float) : t->nb[1] * (size_t)t->ne[1];
  return (struct access){t->data, (const char*)t->data + bytes, mode, split};
}

// Returns the split with which a row was written since the last barrier, or `otherwise`.
static struct split split_of(const struct stage* s, const struct ggml_tensor* t, struct split otherwise) {
  for (int i = s->count - 1; i >= 0; i--)
    if (s->list[i].begin == t->data && s->list[i].mode == WRITE_SHARE) return s->list[i].split;
  return otherwise;
}

// Adds a node to the stage, after a barrier if it needs one.
static void add_to_stage(struct plan* p, struct stage* s, int i, const struct access* list, int n) {
  bool meets = s->count + n > ACCESSES;
  for (int a = 0; a < n && !meets; a++)
    for (int b = 0; b < s->count && !meets; b++) meets = conflict(list + a, s->list + b);
  if (meets) {
    if (s->last >= 0) p->steps[s->last].meet = true;
    s->count = 0;
  }
  for (int a = 0; a < n; a++) s->list[s->count++] = list[a];
  s->last = i;
}

static void plan_step(struct plan* p, struct stage* s, int i, bool* up) {
  struct ggml_tensor *t = p->nodes[i], *a = t->src[0], *b = t->src[1];
  struct step* step = p->steps + i;
  const struct split plain = {UNIT, false};
  struct access list[4];
  int n = 0;
  if (step->role == ROLE_PRODUCT) {
    step->split = split_of_product(p->nodes, p->count, i, up);
    // Each thread has the result of a norm for itself.
    bool own = false;
    for (int k = 0; k < s->count; k++) own |= s->list[k].mode == WRITE_ONE && s->list[k].begin == b->data;
    if (!own) list[n++] = access_to(b, READ_ALL, plain);
    p->matrix[p->matrices++] = i;
  } else {
    step->split = split_of(s, a, step->role == ROLE_STORE || !b ? plain : split_of(s, b, plain));
    list[n++] = access_to(a, READ_SHARE, step->split);
    if (step->role == ROLE_ADD || step->role == ROLE_GLU) list[n++] = access_to(b, READ_SHARE, step->split);
    // A head is rotated by one thread.
    if (step->role == ROLE_ROPE && step->split.unit % t->ne[0]) step->split = (struct split){t->ne[0], false}, list[0].split = step->split;
    // ggml may have given the memory of positions and row numbers to a later node.
    if (step->role == ROLE_ROPE || step->role == ROLE_STORE) list[n++] = access_to(b, READ_ALL, plain);
  }
  list[n++] = access_to(t, WRITE_SHARE, step->split);
  add_to_stage(p, s, i, list, n);
  // After a barrier the thread's own copy is gone.
  if (step->role == ROLE_PRODUCT && s->count == 1) s->list[s->count++] = access_to(b, READ_ALL, plain);
}

static void make_plan(struct plan* p) {
  struct stage s = {.last = -1};
  bool up = false;
  p->matrices = 0;
  for (int i = 0; i < p->count; i++) {
    struct ggml_tensor* t = p->nodes[i];
    p->steps[i] = (struct step){ROLE_NOTHING, false, {UNIT, false}};
    if (is_view(t->op)) continue;
    if (is_norm(p->nodes, p->count, i)) {
      struct ggml_tensor* out = p->nodes[i + 1];
      const struct split plain = {UNIT, false};
      const struct access list[] = {access_to(t->src[0], READ_ALL, plain), access_to(t, WRITE_ONE, plain),
                                    access_to(out, WRITE_ONE, plain)};
      i++;
      p->steps[i] = (struct step){ROLE_NORM, false, plain};
      add_to_stage(p, &s, i, list, 3);
      continue;
    }
    p->steps[i].role = role_of(t);
    if (p->steps[i].role == ROLE_GGML) {
      // ggml's own barrier follows such a node.
      if (s.last >= 0) p->steps[s.last].meet = true;
      s.last = -1, s.count = 0;
      continue;
    }
    plan_step(p, &s, i, &up);
  }
  if (s.last >= 0) p->steps[s.last].meet = true;
}

// Returns whether the graph is that of one token. The first product tells it of most others.
static bool worth_planning(const struct ggml_cgraph* graph) {
  int products = 0;
  for (int i = 0; i < graph->n_nodes; i++) {
    const struct ggml_tensor* t = graph->nodes[i];
    if (t->op == GGML_OP_MUL_MAT) {
      const bool planned_product = role_of(t) == ROLE_PRODUCT;
      if (!products && !planned_product) return false;
      products += planned_product;
    }
    if (!is_view(t->op) && (!(t->flags & COMPUTED) || elements(t) == 0)) return false;
  }
  return products > 1;
}

static bool prepare(struct plan* p, const struct ggml_cgraph* graph) {
  if (graph->uid && p->uid == graph->uid && p->count == graph->n_nodes && p->nodes == graph->nodes) return true;
  p->uid = 0;
  if (!worth_planning(graph)) return false;
  if (p->room < graph->n_nodes) {
    free(p->steps);
    free(p->matrix);
    p->steps = malloc((size_t)graph->n_nodes * sizeof *p->steps);
    p->matrix = malloc((size_t)graph->n_nodes * sizeof *p->matrix);
    p->room = p->steps && p->matrix ? graph->n_nodes : 0;
    if (!p->room) return false;
  }
  p->nodes = graph->nodes, p->count = graph->n_nodes;
  make_plan(p);
  p->uid = graph->uid;
  return true;
}

// ggml's first thread asks after each node whether to stop, and the others look for its answer behind the next barrier.
// Where a barrier is left out they may be elsewhere in the graph, and would never stop.
static bool stops(void* data) {
  const struct ggml_cplan* given = data;
  return self.next != NO_BARRIER && given->abort_callback(given->abort_callback_data);
}

int ggml_graph_compute(struct ggml_cgraph* graph, struct ggml_cplan* cplan) {
  struct plan* p = NULL;
  // A thread alone meets nobody, and prefetching panel by panel serves it better.
  if (puna_avx512 && cplan->work_data && !cplan->use_ref && cplan->n_threads > 1 && puna_sequences.count < 2)
    for (int i = 0; i < PLANS && !p; i++)
      if (!atomic_exchange(&plans[i].taken, true)) p = plans + i;
  if (!p) return puna_compute_sleeping(graph, cplan);
  int status;
  if (prepare(p, graph)) {
    struct ggml_cplan own = *cplan;
    if (own.abort_callback) own.abort_callback = stops, own.abort_callback_data = cplan;
    p->run = atomic_fetch_add(&runs, 1) + 1;
    atomic_store(&p->arrived, 0);
    p->wdata = cplan->work_data;
    atomic_fetch_add_explicit(&planned, 1, memory_order_relaxed);
    status = ggml.graph_compute(graph, &own);
  } else {
    status = puna_compute_sleeping(graph, cplan);
  }
  p->wdata = NULL;
  atomic_store(&p->taken, false);
  return status;
}

// ---- computing -----------------------------------------------------------------------------------------------------

HIDDEN void puna_next_share(struct weight_stream* s) {
  s->next = s->end = NULL;
  while (s->next == s->end && ++s->matrix < s->plan->matrices) {
    const int i = s->plan->matrix[s->matrix];
    const struct ggml_tensor* a = s->plan->nodes[i]->src[0];
    const struct split split = s->plan->steps[i].split;
    s->next = (const uint8_t*)a->data + (size_t)share(a->ne[1], split, s->ith, s->nth) * a->nb[1];
    s->end = (const uint8_t*)a->data + (size_t)share(a->ne[1], split, s->ith + 1, s->nth) * a->nb[1];
  }
  if (s->next == s->end) s->next = NULL;
}

// Returns the step of a node, if the running graph has a plan and the node a role in it.
static struct step* begin(const struct ggml_compute_params* params, const struct ggml_tensor* t, enum role role) {
  struct plan* p = NULL;
  if (!puna_avx512 || !params->wdata) return NULL;
  for (int i = 0; i < PLANS && !p; i++)
    if (plans[i].wdata == params->wdata) p = plans + i;
  if (!p) return NULL;
  if (self.run != p->run) {
    self.run = p->run, self.plan = p, self.cursor = 0, self.norm_of = NULL;
    for (int i = 0; i < COLUMN_TYPES; i++) self.columns[i].of = NULL;
    self.stream = (struct weight_stream){.plan = p, .matrix = -1, .ith = params->ith, .nth = params->nth};
    puna_next_share(&self.stream);
  }
  for (int i = self.cursor; i < p->count; i++)
    if (p->nodes[i] == t) {
      self.cursor = i + 1;
      return p->steps[i].role == role ? p->steps + i : NULL;
    }
  return NULL;
}

static void finish(const struct step* step) { self.next = step->meet ? OWN_BARRIER : NO_BARRIER; }

KERNEL static void meet(struct plan* p) {
  const unsigned round = atomic_load_explicit(&p->round, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1 == self.stream.nth) {
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->round, round + 1, memory_order_release);
    return;
  }
  for (int i = 0; atomic_load_explicit(&p->round, memory_order_acquire) == round; i++) {
    prefetch_weights(&self.stream, 2);
    _mm_pause();
    if (i > SPINS) sched_yield();
  }
}

void ggml_barrier(struct ggml_threadpool* pool) {
  const int next = self.next;
  self.next = GGMLS_BARRIER;
  if (next == NO_BARRIER) return;
  self.norm_of = NULL;
  for (int i = 0; i < COLUMN_TYPES; i++) self.columns[i].of = NULL;
  if (next == OWN_BARRIER)
    meet(self.plan);
  else
    puna_meet_all(pool);
}

HIDDEN bool puna_planned_norm(const struct ggml_compute_params* params, const struct ggml_tensor* norm,
                              struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_NORM);
  if (!step) return false;
  const struct ggml_tensor *x = norm->src[0], *w = dst->src[0] == norm ? dst->src[1] : dst->src[0];
  const int64_t n = x->ne[0];
  float eps, *y = thread_room(&self.norm, (size_t)n * sizeof(float));
  memcpy(&eps, norm->op_params, sizeof eps);
  puna_norm_row(x->data, puna_norm_scale(x->data, n, eps, &self.stream), w->data, n, y);
  // For whoever else reads it, after a barrier.
  if (params->ith == 0) memcpy(dst->data, y, (size_t)n * sizeof(float));
  self.norm_of = dst->data;
  for (int i = 0; i < COLUMN_TYPES; i++)
    if (self.columns[i].of == dst->data) self.columns[i].of = NULL;
  finish(step);
  return true;
}

static const void* quantized(const struct ggml_tensor* b, int type) {
  struct column* c = self.columns + (type == GGML_TYPE_Q8_0 ? 0 : type == GGML_TYPE_Q8_1 ? 1 : 2);
  if (c->of == b->data) return c->data.at;
  const float* x = b->data == self.norm_of ? self.norm.at : b->data;
  thread_room(&c->data, (size_t)b->ne[0] * 2);
  (type == GGML_TYPE_Q8_0   ? quantize_row_q8_0
   : type == GGML_TYPE_Q8_1 ? quantize_row_q8_1
                            : quantize_row_q8_K)(x, c->data.at, b->ne[0]);
  c->of = b->data;
  return c->data.at;
}

void ggml_compute_forward_mul_mat(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_PRODUCT);
  if (!step) {
    ggml.mul_mat(params, dst);
    return;
  }
  int type = 0;
  const struct ggml_tensor* a = dst->src[0];
  puna_column_type((int)a->type, a->ne[1], &type);
  puna_multiply_column(a, quantized(dst->src[1], type), dst->data, share(a->ne[1], step->split, params->ith, params->nth),
                       share(a->ne[1], step->split, params->ith + 1, params->nth), &self.stream);
  finish(step);
}

void ggml_compute_forward_add(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_ADD);
  if (!step) {
    ggml.add(params, dst);
    return;
  }
  const float *a = dst->src[0]->data, *b = dst->src[1]->data;
  float* c = dst->data;
  const int64_t end = share(dst->ne[0], step->split, params->ith + 1, params->nth);
  for (int64_t i = share(dst->ne[0], step->split, params->ith, params->nth); i < end; i++) c[i] = a[i] + b[i];
  finish(step);
}

void ggml_compute_forward_glu(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_GLU);
  if (!step) {
    ggml.glu(params, dst);
    return;
  }
  const int64_t first = share(dst->ne[0], step->split, params->ith, params->nth);
  const int64_t end = share(dst->ne[0], step->split, params->ith + 1, params->nth);
  if (first < end)
    ggml.swiglu((int)(end - first), (float*)dst->data + first, (const float*)dst->src[0]->data + first,
                (const float*)dst->src[1]->data + first);
  finish(step);
}

void ggml_compute_forward_rope(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_ROPE);
  if (!step) {
    ggml.rope(params, dst);
    return;
  }
  const int64_t n = dst->ne[0], first = share(elements(dst), step->split, params->ith, params->nth) / n;
  const int64_t end = share(elements(dst), step->split, params->ith + 1, params->nth) / n;
  if (first < end) {
    // ggml rotates some of the heads, as its only thread.
    struct ggml_tensor from = *dst->src[0], to = *dst;
    from.data = (char*)from.data + (size_t)first * from.nb[1];
    to.data = (char*)to.data + (size_t)first * to.nb[1];
    from.ne[1] = to.ne[1] = end - first;
    to.src[0] = &from;
    struct ggml_compute_params alone = *params;
    alone.ith = 0, alone.nth = 1;
    alone.wsize = (size_t)n * sizeof(float) + 4 * LINE;
    alone.wdata = thread_room(&self.scratch, alone.wsize);
    ggml.rope(&alone, &to);
  }
  finish(step);
}

void ggml_compute_forward_set_rows(const struct ggml_compute_params* params, struct ggml_tensor* dst) {
  const struct step* step = begin(params, dst, ROLE_STORE);
  if (!step) {
    ggml.set_rows(params, dst);
    return;
  }
  const struct ggml_tensor *a = dst->src[0], *b = dst->src[1];
  int64_t row = 0;
  memcpy(&row, b->data, b->nb[0]);
  const int64_t first = share(a->ne[0], step->split, params->ith, params->nth);
  const int64_t end = share(a->ne[0], step->split, params->ith + 1, params->nth);
  if (first < end)
    ggml.to_f16((const float*)a->data + first, (uint16_t*)((char*)dst->data + (size_t)row * dst->nb[1]) + first,
                end - first);
  finish(step);
}
