"""Deltas of tool calls: the arguments of a call while the model writes it."""
