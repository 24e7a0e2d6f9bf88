"""Go templates for well-known chat templates, found by how near a file's own Jinja template comes to one of them.

The Jinja texts are those of the model cards; the Go templates are ours and write the same prompts. Of models that
refuse system messages the system text goes in front of the next user message.

What they write was held against the reference's, conversation by conversation, its slips included: Command R's prompts
have one end of turn too many.
"""

from dataclasses import dataclass
from typing import Final

from puna.models.create.distance import distance
from puna.models.create.model_cards import SPELLINGS

NEAR: Final = 100
"""Edits below which a template counts as the known one."""


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A chat template that many models bring, and the Go template that writes the same prompts."""

    name: str
    jinja: tuple[str, ...]
    """Its spellings."""
    template: str
    stop: tuple[str, ...] = ()


def nearest(text: str) -> KnownTemplate | None:
    """Return the known template that is nearest to a Jinja template; None if none is near."""
    best: KnownTemplate | None = None
    limit = NEAR
    for known in KNOWN:
        for spelling in known.jinja:
            edits = distance(spelling, text, limit)
            if edits < limit:
                best, limit = known, edits
    return best


KNOWN: Final[tuple[KnownTemplate, ...]] = (
    KnownTemplate(
        "alfred",
        SPELLINGS["alfred"],
        "{{- range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>{{ end }}<start_assistant>",
        ("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
    ),
    KnownTemplate(
        "alpaca",
        SPELLINGS["alpaca"],
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}### Instruction:\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}### Response:\n'
        "{{ .Content }}\n\n{{ end }}{{ end }}### Response:\n",
        ("### Instruction:", "### Response"),
    ),
    KnownTemplate(
        "chatml",
        SPELLINGS["chatml"],
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>"),
    ),
    KnownTemplate(
        "chatqa",
        SPELLINGS["chatqa"],
        '{{- range .Messages }}{{ if eq .Role "system" }}System:{{ else if eq .Role "user" }}User:'
        '{{ else if eq .Role "assistant" }}Assistant:{{ end }} {{ .Content }}\n\n{{ end }}Assistant:',
        ("System:", "User:", "Assistant:", "<|begin_of_text|>"),
    ),
    KnownTemplate(
        "codellama-70b-instruct",
        SPELLINGS["codellama-70b-instruct"],
        '{{- range .Messages }}Source:{{ if or (eq .Role "system") (eq .Role "user") (eq .Role "assistant") }} '
        "{{ .Role }}{{ end }}\n\n {{ .Content }} <step> {{ end }}Source: assistant\nDestination: user\n\n ",
        ("Source:", "Destination:", "<step>"),
    ),
    KnownTemplate(
        "command-r",
        SPELLINGS["command-r"],
        "{{- if or .System .Tools }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ if .Tools }}# Safety Preamble\n"
        "The instructions in this section override those in the task description and style guide sections. "
        "Don't answer questions that are harmful or immoral.\n\n# System Preamble\n## Basic Rules\n"
        "You are a powerful conversational AI trained by Cohere to help people. You are augmented by a "
        "number of tools, and your job is to use and consume the output of these tools to best help the "
        "user. You will see a conversation history between yourself and a user, ending with an utterance "
        "from the user. You will then see a specific instruction instructing you what kind of response to "
        "generate. When you answer the user's requests, you cite your sources in your answers, according "
        "to those instructions.\n\n{{ if .System }}# User Preamble\n{{ .System }}{{ end }}\n\n"
        "## Available Tools\nHere is a list of tools that you have available to you:{{ range .Tools }}\n\n"
        "```python\ndef {{ .Function.Name }}({{ range $name, $value := .Function.Parameters.Properties }}"
        "{{ $name }}: {{ $value.Type }}, {{ end }}) -> List[Dict]:\n    '''{{ .Function.Description }}\n"
        "{{ if .Function.Parameters.Properties }}\n    Args:\n"
        "{{ range $name, $value := .Function.Parameters.Properties }}        {{ $name }} ({{ $value.Type }}): "
        "{{ $value.Description }}\n{{ end }}{{ end }}    '''\n    pass\n```{{ end }}{{ else }}{{ .System }}"
        "{{ end }}<|END_OF_TURN_TOKEN|>{{ end }}{{ range .Messages }}"
        '{{ if ne .Role "system" }}<|START_OF_TURN_TOKEN|>{{ if eq .Role "user" }}<|USER_TOKEN|>{{ .Content }}'
        "{{ if $.Tools }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Write 'Action:' followed by a "
        "json-formatted list of actions that you want to perform in order to produce a good response to "
        "the user's last input. You can use any of the supplied tools any number of times, but you should "
        "aim to execute the minimum number of necessary actions for the input. You should use the "
        "`directly-answer` tool if calling the other tools is unnecessary. The list of actions you want to "
        "call should be formatted as a list of json objects, for example:\n```json\n[\n    {\n"
        '        "tool_name": title of the tool in the specification,\n'
        '        "parameters": a dict of parameters to input into the tool as they are defined in the '
        "specs, or {} if it takes no parameters\n    }\n]```{{ end }}"
        '{{ else if eq .Role "assistant" }}<|CHATBOT_TOKEN|>{{ if .Content }}{{ .Content }}'
        '{{ else if .ToolCalls }}\nAction: ```json\n[{{ range .ToolCalls }}\n    {\n        "tool_name": "'
        '{{ .Function.Name }}",\n        "parameters": {{ .Function.Arguments }}\n    }{{ end }}\n]```{{ end }}'
        '{{ else if eq .Role "tool" }}<|SYSTEM_TOKEN|><results>\nconsole_output: {{ .Content }}\n</results>'
        "{{ end }}<|END_OF_TURN_TOKEN|>{{ end }}"
        "{{ end }}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>\n",
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    KnownTemplate(
        "falcon-instruct",
        SPELLINGS["falcon-instruct"],
        '{{- range .Messages }}{{ if eq .Role "system" }}System: {{ else if eq .Role "user" }}User:\n'
        '{{ else if eq .Role "assistant" }}Falcon:\n{{ else }}\n{{ end }}{{ .Content }}\n{{ end }}Falcon:\n',
        ("User:", "Assistant:"),
    ),
    KnownTemplate(
        "gemma-instruct",
        SPELLINGS["gemma-instruct"],
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}{{ else }}'
        '{{ if eq .Role "user" }}<start_of_turn>user\n{{ if $system }}{{ $system }}\n{{ $system = "" }}'
        '{{ end }}{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ else }}\n{{ end }}'
        "{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}<start_of_turn>model\n",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    KnownTemplate(
        "gemma3-instruct",
        SPELLINGS["gemma3-instruct"],
        '{{- range $place, $_ := .Messages }}{{ if eq .Role "user" }}<start_of_turn>user\n'
        "{{ if and (eq $place 1) $.System }}{{ $.System }}\n\n{{ end }}{{ .Content }}<end_of_turn>\n"
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}'
        "{{ end }}<start_of_turn>model\n\n",
        ("<end_of_turn>",),
    ),
    KnownTemplate(
        "granite-instruct",
        SPELLINGS["granite-instruct"],
        '{{- range .Messages }}{{ if eq .Role "system" }}System:{{ else if eq .Role "user" }}Question:'
        '{{ else if eq .Role "assistant" }}Answer:{{ end }}\n{{ .Content }}\n\n{{ end }}Answer:\n',
        ("System:", "Question:", "Answer:"),
    ),
    KnownTemplate(
        "llama2-chat",
        SPELLINGS["llama2-chat"],
        '{{- $system := "" }}[INST] {{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}<<SYS>>{{ if $system }}\n{{ $system }}\n{{ $system = "" }}'
        '{{ end }}<</SYS>>\n\n{{ .Content }} [/INST]{{ else if eq .Role "assistant" }} '
        "{{ .Content }}</s><s>[INST] {{ end }}{{ end }}",
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    KnownTemplate(
        "llama3-instruct",
        SPELLINGS["llama3-instruct"],
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
        "{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    KnownTemplate(
        "magicoder",
        SPELLINGS["magicoder"],
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}@@ Instruction\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}@@ Response\n'
        "{{ .Content }}\n\n{{ else }}\n{{ .Content }}\n\n{{ end }}{{ end }}@@ Response\n",
        ("@@ Instruction", "@@ Response"),
    ),
    KnownTemplate(
        "mistral-instruct",
        SPELLINGS["mistral-instruct"],
        '[INST] {{ range .Messages }}{{ if eq .Role "system" }}{{ .Content }}\n\n{{ else if eq .Role "user" }}'
        '{{ .Content }}[/INST]{{ else if eq .Role "assistant" }} {{ .Content }}</s>[INST] {{ end }}{{ end }}',
        ("<|im_start|>", "<|im_end|>"),
    ),
    KnownTemplate(
        "openchat",
        SPELLINGS["openchat"],
        '{{- range .Messages }}GPT4 Correct {{ if eq .Role "system" }}System: '
        '{{ else if eq .Role "user" }}User: {{ else if eq .Role "assistant" }}Assistant: {{ end }}'
        "{{ .Content }}<|end_of_turn|>{{ end }}GPT4 Correct Assistant:",
        ("<|end_of_turn|>",),
    ),
    KnownTemplate(
        "phi-3",
        SPELLINGS["phi-3"],
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    KnownTemplate(
        "solar-instruct",
        SPELLINGS["solar-instruct"],
        '{{- range .Messages }}{{ if eq .Role "system" }}### System:{{ else if eq .Role "user" }}### User:'
        '{{ else if eq .Role "assistant" }}### Assistant:{{ end }}\n{{ .Content }}'
        '{{ if eq .Role "assistant" }}</s>{{ end }}\n\n{{ end }}### Assistant:\n',
        ("### System:", "### User:", "### Assistant"),
    ),
    KnownTemplate(
        "starcoder2-instruct",
        SPELLINGS["starcoder2-instruct"],
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}{{ if $system }}{{ $system }}\n\n{{ $system = "" }}'
        '{{ end }}### Instruction\n{{ .Content }}\n\n{{ else if eq .Role "assistant" }}### Response\n'
        "{{ .Content }}<|endoftext|>\n\n{{ end }}{{ end }}### Response\n",
        ("### Instruction", "### Response", "<|endoftext|>"),
    ),
    KnownTemplate(
        "zephyr",
        SPELLINGS["zephyr"],
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        ("<|system|>", "</s>", "<|user|>", "<|assistant|>"),
    ),
)
