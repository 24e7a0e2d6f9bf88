"""Renders conversations through Go templates, and reads the answers of models that have one."""
