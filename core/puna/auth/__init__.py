"""Who calls, and what the caller may do: API keys, permissions, limits and usage per key."""
