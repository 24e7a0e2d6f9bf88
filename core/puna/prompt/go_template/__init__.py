"""Rendering of Go templates, and parsers for what models with a Go template write."""
