"""Go templates for well-known chat templates, found by how near a file's own Jinja template comes to one of them.

The Jinja texts are not kept: `fingerprints` estimates how near a text comes to them. The Go templates are ours and hold
the format of each family alone, its delimiters and stop strings. They write the prompts that Ollama's templates write,
conversation by conversation (tests/core/models/create/known_prompts.json). For models that refuse system messages the
system text goes in front of the next user message.

Families that Ollama knows and this table does not keep the file's own Jinja template: rest_bridge/README.md lists them
among the differences.
"""

from dataclasses import dataclass
from typing import Final

from puna.models.create import fingerprints

NEAR: Final = 100
"""Edits below which a template counts as the known one."""


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A Go template for a chat template that many models bring."""

    name: str
    """Its name in Ollama and in the fingerprints."""
    template: str
    stop: tuple[str, ...] = ()
    """Stop strings that are stored with it."""


def nearest(text: str) -> KnownTemplate | None:
    """Return the known template that is nearest to a Jinja template; None if none is near."""
    name = fingerprints.nearest(text, fingerprints.load(), NEAR)
    # Every fingerprint has its row below: a name without one would be an error here and not a model without a template.
    return _BY_NAME[name] if name is not None else None


KNOWN: Final[tuple[KnownTemplate, ...]] = (
    KnownTemplate(
        "alfred",
        "{{- range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>{{ end }}<start_assistant>",
        ("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
    ),
    KnownTemplate(
        # The variable holds the system text until a message of the user takes it, since the family has no system role.
        "alpaca",
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}### Instruction:\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}### Response:\n'
        "{{ .Content }}\n\n{{ end }}{{ end }}### Response:\n",
        ("### Instruction:", "### Response"),
    ),
    KnownTemplate(
        "chatml",
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    KnownTemplate(
        "chatqa",
        '{{- range .Messages }}{{ if eq .Role "system" }}System:{{ else if eq .Role "user" }}User:'
        '{{ else if eq .Role "assistant" }}Assistant:{{ end }} {{ .Content }}\n\n{{ end }}Assistant:',
        ("System:", "User:", "Assistant:", "<|begin_of_text|>"),
    ),
    KnownTemplate(
        "codellama-70b-instruct",
        '{{- range .Messages }}Source:{{ if or (eq .Role "system") (eq .Role "user") (eq .Role "assistant") }} '
        "{{ .Role }}{{ end }}\n\n {{ .Content }} <step> {{ end }}Source: assistant\nDestination: user\n\n ",
        ("Source:", "Destination:", "<step>"),
    ),
    KnownTemplate(
        "falcon-instruct",
        '{{- range .Messages }}{{ if eq .Role "system" }}System: {{ else if eq .Role "user" }}User:\n'
        '{{ else if eq .Role "assistant" }}Falcon:\n{{ else }}\n{{ end }}{{ .Content }}\n{{ end }}Falcon:\n',
        ("User:", "Assistant:"),
    ),
    KnownTemplate(
        "gemma-instruct",
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}{{ else }}'
        '{{ if eq .Role "user" }}<start_of_turn>user\n{{ if $system }}{{ $system }}\n{{ $system = "" }}'
        '{{ end }}{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ else }}\n{{ end }}'
        "{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}<start_of_turn>model\n",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    KnownTemplate(
        # The system text stands in the first message of the user, which is the one after the system message.
        "gemma3-instruct",
        '{{- range $place, $_ := .Messages }}{{ if eq .Role "user" }}<start_of_turn>user\n'
        "{{ if and (eq $place 1) $.System }}{{ $.System }}\n\n{{ end }}{{ .Content }}<end_of_turn>\n"
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}'
        "{{ end }}<start_of_turn>model\n\n",
        ("<end_of_turn>",),
    ),
    KnownTemplate(
        "granite-instruct",
        '{{- range .Messages }}{{ if eq .Role "system" }}System:{{ else if eq .Role "user" }}Question:'
        '{{ else if eq .Role "assistant" }}Answer:{{ end }}\n{{ .Content }}\n\n{{ end }}Answer:\n',
        ("System:", "Question:", "Answer:"),
    ),
    KnownTemplate(
        "llama2-chat",
        '{{- $system := "" }}[INST] {{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}<<SYS>>{{ if $system }}\n{{ $system }}\n{{ $system = "" }}'
        '{{ end }}<</SYS>>\n\n{{ .Content }} [/INST]{{ else if eq .Role "assistant" }} '
        "{{ .Content }}</s><s>[INST] {{ end }}{{ end }}",
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    KnownTemplate(
        "llama3-instruct",
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
        "{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    KnownTemplate(
        "magicoder",
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}@@ Instruction\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}@@ Response\n'
        "{{ .Content }}\n\n{{ else }}\n{{ .Content }}\n\n{{ end }}{{ end }}@@ Response\n",
        ("@@ Instruction", "@@ Response"),
    ),
    KnownTemplate(
        "mistral-instruct",
        '[INST] {{ range .Messages }}{{ if eq .Role "system" }}{{ .Content }}\n\n{{ else if eq .Role "user" }}'
        '{{ .Content }}[/INST]{{ else if eq .Role "assistant" }} {{ .Content }}</s>[INST] {{ end }}{{ end }}',
        ("<|im_start|>", "<|im_end|>"),
    ),
    KnownTemplate(
        "openchat",
        '{{- range .Messages }}GPT4 Correct {{ if eq .Role "system" }}System: '
        '{{ else if eq .Role "user" }}User: {{ else if eq .Role "assistant" }}Assistant: {{ end }}'
        "{{ .Content }}<|end_of_turn|>{{ end }}GPT4 Correct Assistant:",
        ("<|end_of_turn|>",),
    ),
    KnownTemplate(
        "phi-3",
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    KnownTemplate(
        "solar-instruct",
        '{{- range .Messages }}{{ if eq .Role "system" }}### System:{{ else if eq .Role "user" }}### User:'
        '{{ else if eq .Role "assistant" }}### Assistant:{{ end }}\n{{ .Content }}'
        '{{ if eq .Role "assistant" }}</s>{{ end }}\n\n{{ end }}### Assistant:\n',
        ("### System:", "### User:", "### Assistant"),
    ),
    KnownTemplate(
        "starcoder2-instruct",
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}### Instruction\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}### Response\n'
        "{{ .Content }}<|endoftext|>\n\n{{ end }}{{ end }}### Response\n",
        ("### Instruction", "### Response", "<|endoftext|>"),
    ),
    KnownTemplate(
        "zephyr",
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        ("<|system|>", "</s>", "<|user|>", "<|assistant|>"),
    ),
)

_BY_NAME: Final = {known.name: known for known in KNOWN}
