"""Facts about a model that are derived from its files: capabilities, details, template in use."""
