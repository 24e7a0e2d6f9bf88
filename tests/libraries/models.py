"""Templates that give the scripted model skills: the last character of a message picks its script (tests/models)."""

TOOLS = (
    "{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}{{ .Content }}"
    "{{ if .ToolCalls }}{{ range .ToolCalls }}<tool_call>"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}{{ end }}{{ end }}'
)
THINKING = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}"
BOTH = TOOLS.replace("{{ .Content }}", "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}")
CHAT = "{{ range .Messages }}{{ .Content }}{{ end }}"
TEMPLATES = {"chatty": CHAT, "toolful": TOOLS, "thinker": THINKING, "hermes": BOTH}
