"""The core: models, prompts, backend plugins and the gRPC services. Plugin authors start at puna.backend."""
