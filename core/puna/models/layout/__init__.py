"""The documents of a model in the store: manifest, configuration, parameters and preset messages."""
