"""Records the fixtures of tests/ again from a running Ollama."""
