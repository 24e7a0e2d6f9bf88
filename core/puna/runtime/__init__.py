"""Loaded models: their processes, who holds them, how long they stay, and who waits."""
