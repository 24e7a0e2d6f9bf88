"""The REST bridge: the HTTP APIs of Ollama, OpenAI and Anthropic, as a client of Puna's gRPC services."""
