"""Import of GGUF files in place, and checks and repairs of a store."""
