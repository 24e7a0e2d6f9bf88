"""Authorization of callers: API keys, permissions, limits and usage per key."""
