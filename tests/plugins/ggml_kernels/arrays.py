"""Arrays as ggml takes them."""

import ctypes

import numpy as np


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def random_rows(count, length, seed):
    return np.random.default_rng(seed).standard_normal((count, length), np.float32)
