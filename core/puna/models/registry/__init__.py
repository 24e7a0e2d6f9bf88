"""Models from and to registries, over the protocol of docker's registries as Ollama speaks it."""
