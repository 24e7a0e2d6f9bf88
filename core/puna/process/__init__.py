"""Operating-system processes: their environment, temporary folders, end and event loop."""
