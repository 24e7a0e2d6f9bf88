"""What a model's templates are and say, worked out once for each model."""

from functools import cached_property
from typing import Final

from puna.backend import ModelFacts
from puna.go.template.facts import Facts
from puna.models.stored import StoredModel
from puna.prompt.builtin import gemma4, registry
from puna.prompt.builtin.interface import Parser, Renderer
from puna.sandbox.sandbox import Sandbox
from puna.sandbox.templates import ChatTemplate, GoTemplate

DEFAULT_TEMPLATE: Final = "{{ .Prompt }}"


class ModelTemplates:
    """A model's templates. Reading them may block and may raise TemplateError."""

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
        """The texts around thinking."""
        return self._facts.thinking_tags

    @property
    def tool_tag(self) -> str:
        """The text that begins a tool call."""
        return self._facts.tool_tag

    @property
    def _facts(self) -> Facts:
        return self._model.template_facts or Facts()

    def renderer(self) -> Renderer | None:
        """Return the renderer that the model names; None: it names none. UnknownRendererError: nobody knows it."""
        name = self._model.config.renderer
        if name == "gemma4":
            name = gemma4.variant(self._model.name.shortest, lambda: self._model.gguf.parameter_count)
        return registry.renderer(name) if name else None

    @property
    def parser_name(self) -> str:
        """The kind of parser that the model names; empty: none."""
        return self._model.config.parser or ("harmony" if self._model.is_harmony else "")

    def parser(self) -> Parser | None:
        """Return a fresh parser of the kind that the model names; None: it names none that is known."""
        return registry.parser(self.parser_name) if self.parser_name else None

    def chat_template(self, facts: ModelFacts) -> ChatTemplate:
        """Return the model file's own template, which may print what the loaded model calls its ends."""
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
