"""Which models exist: their names, files, metadata, and how they are made and removed."""
