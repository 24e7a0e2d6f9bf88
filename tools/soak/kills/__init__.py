"""Servers and nodes that are killed at random under load: each client gets its answer or a clear error, and soon."""
