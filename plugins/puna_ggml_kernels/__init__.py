"""CPU kernels for ggml on processors with AVX-512 VNNI, and their loader. Importing this loads no library.

The package knows ggml and llama-cpp-python, and nothing of Puna.
"""
