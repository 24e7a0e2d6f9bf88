"""Structured output: constraints on the tokens that a sequence may produce."""
