"""A node: the program that runs model hosts for a core on another machine. See README.md."""
