"""What request bodies look like, as tables of Go types: the names in them are those of error texts."""
