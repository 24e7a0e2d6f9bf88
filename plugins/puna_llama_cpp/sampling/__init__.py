"""Sampling: llama.cpp's sampler chain, the prefilter before it, and log-probabilities."""
