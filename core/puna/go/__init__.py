"""Go's formats, which Ollama's clients and models see: JSON, durations, printing, templates."""
