"""Runs templates, which are strangers' programs, in processes that can be killed."""
