// Huge pages for weights, in the place of ggml_aligned_malloc.
//
// Each token reads all weights once, so the processor looks up the physical address of every page of them for each
// token. A page of 2 MB takes one look-up where pages of 4 KB take 512. Many systems give huge pages only to memory for
// which a program asks (the setting `madvise` of transparent huge pages), and it has to ask before the memory is
// written. Other buffers of ggml, such as KV caches, are filled in part, and huge pages would make them take more
// memory than they use. So the loader switches this on while a model is loaded, and off again.
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "ggml_abi.h"

enum {
  HUGE_PAGE = 2 << 20,
  SMALLEST = 4 * HUGE_PAGE,  // bytes of a buffer from which it is worth it
};

static atomic_bool wanted;

// Has buffers that are allocated from now on, by any thread, take huge pages, or no longer.
void puna_set_huge_pages(bool on) { atomic_store(&wanted, on); }

void* ggml_aligned_malloc(size_t size) {
  void* memory = NULL;
  if (ggml.aligned_malloc)
    memory = ggml.aligned_malloc(size);
  else if (posix_memalign(&memory, 64, size))
    return NULL;
  if (!memory || size < SMALLEST || !atomic_load(&wanted)) return memory;
  // Whole pages inside the buffer. A kernel without huge pages refuses, which does no harm.
  const uintptr_t first = ((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  const uintptr_t end = ((uintptr_t)memory + size) / HUGE_PAGE * HUGE_PAGE;
  madvise((void*)first, end - first, MADV_HUGEPAGE);
  return memory;
}
