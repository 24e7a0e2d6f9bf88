"""Metrics of the core in the text format of Prometheus."""
