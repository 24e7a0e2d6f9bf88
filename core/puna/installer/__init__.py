"""Installing plugins, each into a Python environment of its own. README.md has the layout and the reasons."""
