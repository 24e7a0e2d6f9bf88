"""Writes prompts from messages, and reads content, thinking and tool calls from answers."""
