"""Writes grammars that bind an answer to a tool call (`tool_choice: required`)."""
