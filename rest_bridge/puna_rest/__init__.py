"""The Ollama REST API over Puna's gRPC services: a client of the core like any other."""
