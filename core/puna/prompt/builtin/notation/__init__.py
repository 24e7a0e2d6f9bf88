"""Notations in which models write tool calls: JSON, XML, Python literals and others."""
