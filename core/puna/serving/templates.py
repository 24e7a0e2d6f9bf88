"""The templates of a model, parsed and probed once per model."""

from functools import cached_property
from typing import Final

from puna.backend import ModelFacts
from puna.go.template.facts import Facts
from puna.models.stored import StoredModel
from puna.prompt.builtin import gemma4, registry
from puna.prompt.builtin.interface import Parser, Renderer
from puna.sandbox.sandbox import Sandbox
from puna.sandbox.templates import ChatTemplate, GoTemplate

# Ollama's default for a model without a template.
DEFAULT_TEMPLATE: Final = "{{ .Prompt }}"


class ModelTemplates:
    """The templates, renderer and parser of one model. Reading them may block and may raise TemplateError."""

    def __init__(self, model: StoredModel, sandbox: Sandbox) -> None:
        self._model = model
        self._sandbox = sandbox
        self._chat_templates: dict[tuple[str, str, bool, bool], ChatTemplate] = {}

    @cached_property
    def template(self) -> GoTemplate:
        """The Go template; the default one if the model has none."""
        text = self._model.template
        return self._sandbox.go_template(DEFAULT_TEMPLATE if text is None else text, self._model.digest)

    @property
    def thinking_tags(self) -> tuple[str, str] | None:
        """The opening and closing tag of thinking in a Go template; None if it has none."""
        return self._facts.thinking_tags

    @property
    def tool_tag(self) -> str:
        """The text with which a tool call begins in a Go template."""
        return self._facts.tool_tag

    @property
    def _facts(self) -> Facts:
        # A model without a Go template has no tags. The empty facts say the same.
        return self._model.template_facts or Facts()

    def renderer(self) -> Renderer | None:
        """Return the builtin renderer that the model names; None if it names none. Raises UnknownRendererError."""
        name = self._model.config.renderer
        if name == "gemma4":
            name = gemma4.variant(self._model.name.shortest, self._parameter_count)
        return registry.renderer(name) if name else None

    def _parameter_count(self) -> int:
        # Only GGUF files are read here; an opaque model has no count that could choose the variant.
        return 0 if self._model.config.is_opaque else self._model.gguf.parameter_count

    @property
    def parser_name(self) -> str:
        """Name of the model's builtin parser; empty: none."""
        return self._model.config.parser or ("harmony" if self._model.is_harmony else "")

    def parser(self) -> Parser | None:
        """Return a new builtin parser for one answer; None if the model names none, or an unknown one."""
        # A new one for each answer, since a parser keeps the state of the answer that it reads.
        return registry.parser(self.parser_name) if self.parser_name else None

    def chat_template(self, facts: ModelFacts) -> ChatTemplate:
        """Return the Jinja chat template of the model file. It may print BOS and EOS, which `facts` has."""
        # The facts come from the loaded model. Another backend may report other texts for the same file.
        key = facts.bos_text, facts.eos_text, facts.adds_bos, facts.adds_eos
        found = self._chat_templates.get(key)
        if found is None:
            found = self._chat_templates[key] = self._sandbox.chat_template(
                self._model.chat_template,
                facts.bos_text,
                facts.eos_text,
                tool_source=self._model.tool_chat_template,
                adds_bos=facts.adds_bos,
                adds_eos=facts.adds_eos,
            )
        return found
