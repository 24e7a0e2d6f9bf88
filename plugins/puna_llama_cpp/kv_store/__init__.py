"""KV caches on disk: sequences that leave memory are kept in files, and restored for prompts that begin like them."""
