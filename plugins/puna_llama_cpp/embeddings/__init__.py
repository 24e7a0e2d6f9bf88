"""Embedding and ranking of texts."""
