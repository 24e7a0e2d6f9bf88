"""The command line. It builds the server from its parts, and alone reads argv and the environment."""
