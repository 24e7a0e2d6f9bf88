// Memory of a thread for the columns of a product.
#pragma once

#include "ggml_abi.h"

// Of matmul.c. The thread keeps the memory for its next products.
HIDDEN void* puna_thread_scratch(size_t bytes);
