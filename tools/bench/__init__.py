"""Drives servers side by side with the same work and compares what their users would feel. See README.md."""
