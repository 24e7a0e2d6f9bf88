"""The command line: the composition root, and the only reader of argv and the environment."""
