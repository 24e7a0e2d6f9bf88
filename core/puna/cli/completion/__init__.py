"""Completion of command lines in bash, zsh and fish.

`puna completion SHELL` prints a script. At each press of Tab, the script calls `puna __complete` with the words in
front of the cursor, and shows the candidates that it prints.
"""
