"""What Puna takes over from Go: JSON, durations, printing and templates, as Ollama's clients and models see them."""
