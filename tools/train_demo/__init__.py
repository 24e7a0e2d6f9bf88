"""Trains llamita, the demo model: text, vocabulary, network, export, and the measure of what it can do."""
