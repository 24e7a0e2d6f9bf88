"""Go templates for well-known chat templates, found by how near a file's own Jinja template comes to one of them.

The Jinja texts are those of the model cards; the Go templates are ours and write the same prompts. Of models that
refuse system messages the system text goes in front of the next user message.
"""

from dataclasses import dataclass
from typing import Final

from puna.models.distance import distance

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
        "chatml",
        (
            "{% for message in messages %}"
            "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
            "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
            "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ),
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        (
            "<|im_start|>",
            "<|im_end|>",
        ),
    ),
    KnownTemplate(
        "gemma-instruct",
        (
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
            "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
            "{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
            "{% set role = message['role'] %}{% endif %}"
            "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        ),
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}<start_of_turn>user\n{{ if $system }}{{ $system }}\n\n'
        '{{ $system = "" }}{{ end }}{{ .Content }}<end_of_turn>\n'
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}'
        "{{ end }}<start_of_turn>model\n",
        (
            "<start_of_turn>",
            "<end_of_turn>",
        ),
    ),
    KnownTemplate(
        "llama3-instruct",
        (
            "{% set loop_messages = messages %}{% for message in loop_messages %}"
            "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ "
            "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
            "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ),
        "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
        "{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
        (
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
    ),
    KnownTemplate(
        "mistral-instruct",
        (
            "{{ bos_token }}{% for message in messages %}"
            "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
            "{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
            "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}"
            "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
        ),
        '{{- $system := "" }}{{ range .Messages }}{{ if eq .Role "system" }}{{ $system = .Content }}'
        '{{ else if eq .Role "user" }}[INST] {{ if $system }}{{ $system }}\n\n{{ $system = "" }}{{ end }}'
        '{{ .Content }} [/INST]{{ else if eq .Role "assistant" }}{{ .Content }}</s>{{ end }}{{ end }}',
        (
            "<|im_start|>",
            "<|im_end|>",
        ),
    ),
    KnownTemplate(
        "openchat",
        (
            "{{ bos_token }}{% for message in messages %}"
            "{{ 'GPT4 Correct ' + message['role'].title() + ': ' + message['content'] + '<|end_of_turn|>'}}"
            "{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}",
        ),
        '{{- range .Messages }}GPT4 Correct {{ if eq .Role "user" }}User'
        '{{ else if eq .Role "assistant" }}Assistant{{ else }}System{{ end }}: {{ .Content }}<|end_of_turn|>'
        "{{ end }}GPT4 Correct Assistant:",
        ("<|end_of_turn|>",),
    ),
    KnownTemplate(
        "phi-3",
        (
            "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
            "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
            "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}"
            "{% endfor %}",
            "{{ bos_token }}{% for message in messages %}"
            "{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ),
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n",
        (
            "<|end|>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
        ),
    ),
    KnownTemplate(
        "zephyr",
        (
            "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
            "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
            "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
            "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
            "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        ),
        "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}</s>\n{{ end }}<|assistant|>\n",
        (
            "<|system|>",
            "</s>",
            "<|user|>",
            "<|assistant|>",
        ),
    ),
)
