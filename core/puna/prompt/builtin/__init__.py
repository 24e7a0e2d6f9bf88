"""Renderers and parsers that models name in their configuration, one module per family of models."""
