"""Images: decoding files, encoding them into vectors, caching the vectors, and their place among tokens."""
