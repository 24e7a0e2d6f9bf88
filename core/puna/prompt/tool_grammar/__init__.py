"""Grammars that force a model to call a tool."""
