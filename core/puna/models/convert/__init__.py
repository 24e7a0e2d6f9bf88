"""Safetensors to GGUF, in a process of its own: `conversion` starts it, the rest runs there, with numpy and gguf."""
