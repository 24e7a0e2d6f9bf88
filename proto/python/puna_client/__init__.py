"""A client of Puna."""
