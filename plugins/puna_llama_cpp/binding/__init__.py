"""llama.cpp's objects with their lifetimes: weights, context, batch, vocabulary, log."""
