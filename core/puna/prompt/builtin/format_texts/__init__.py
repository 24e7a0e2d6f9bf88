"""Texts that model families were trained on, one module for each family, and nothing else."""
