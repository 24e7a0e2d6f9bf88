"""Structured output: constraints on the tokens that a sequence may produce, from a JSON schema, a grammar or a pattern.

Begin with `server`, which explains the processes. `constraint` is the host's side, `compiler` turns constraints into
llguidance matchers, and `json_schema` with its helpers restates schemas so that llguidance enforces every word of them.
"""
