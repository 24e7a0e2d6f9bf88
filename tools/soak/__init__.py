"""A server under mixed work for a long time, and what it may not have kept afterwards."""
