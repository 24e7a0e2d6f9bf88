"""Processes that share a folder of KV caches are killed while they write: answers stay right, and nothing is left."""
