"""llama.cpp's objects with their lifetimes: weights, context, batch, vocabulary and log.

The low-level binding stays here.
"""
