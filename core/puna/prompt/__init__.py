"""From messages to the text a model reads, and from the text it writes to content, thinking and tool calls."""
