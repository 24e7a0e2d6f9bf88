"""What surrounds a model's own chat template: repairs of its input, and parsers of the output its form promises."""
