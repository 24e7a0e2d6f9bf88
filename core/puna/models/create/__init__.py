"""Making a model out of another model or of uploaded files."""
