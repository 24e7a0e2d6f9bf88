"""The child process that runs one backend plugin with one model, and what it says over the wire."""
