"""The request bodies as tables of Go types. The names of types occur in error texts."""
