"""What a model's templates are and say, worked out once for each model."""

from functools import cached_property
from typing import Final

from puna.backend import ModelFacts
from puna.gotemplate import facts as template_facts
from puna.gotemplate.parser import parse
from puna.gotemplate.template import Template
from puna.models.stored import StoredModel
from puna.prompt.builtin import gemma4, registry
from puna.prompt.builtin.interface import Parser, Renderer
from puna.prompt.jinja import ChatTemplate

DEFAULT_TEMPLATE: Final = "{{ .Prompt }}"


class Forms:
    """A model's templates. Reading them may block and may raise TemplateError."""

    def __init__(self, model: StoredModel) -> None:
        self._model = model
        self._chat_templates: dict[tuple[str, str, bool, bool], ChatTemplate] = {}

    @cached_property
    def template(self) -> Template:
        """The Go template; the default one if the model has none."""
        parsed = self._model.parsed_template
        return parse(DEFAULT_TEMPLATE) if parsed is None else parsed

    @cached_property
    def thinking_tags(self) -> tuple[str, str] | None:
        """The texts around thinking."""
        return template_facts.thinking_tags(self.template)

    @cached_property
    def tool_tag(self) -> str:
        """The text that begins a tool call."""
        return template_facts.tool_tag(self.template)

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
            found = self._chat_templates[key] = ChatTemplate(
                self._model.chat_template,
                facts.bos_text,
                facts.eos_text,
                tool_source=self._model.tool_chat_template,
                adds_bos=facts.adds_bos,
                adds_eos=facts.adds_eos,
            )
        return found
