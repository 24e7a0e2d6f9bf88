"""Operating-system processes: their environment, temporary folders, end, and the watchdog over the event loop."""
