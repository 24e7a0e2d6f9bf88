"""Runs the chat templates of model files: repairs their input, and reads answers in the layout that they imply."""
