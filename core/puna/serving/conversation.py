"""The prompt of a conversation, by either of the two ways, cut to the context by whole messages."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from puna.errors import MediaUnsupportedError, PunaError
from puna.messages import Message, Think, Tool
from puna.models.stored import StoredModel
from puna.prompt.builtin.interface import Renderer
from puna.prompt.conversation import assemble, refuse_several_images, strip_old_thinking
from puna.prompt.rendered import RenderedPrompt
from puna.prompt.truncate import fit
from puna.runtime.requirements import Lease
from puna.serving.lengths import head, is_long
from puna.serving.requests import OutputConstraint
from puna.serving.sampling_options import output_constraint
from puna.serving.templates import ModelTemplates

TOKENS_PER_IMAGE: Final = 768
"""What a picture is taken to need, before anybody has looked at it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Renders messages for one request."""

    model: StoredModel
    templates: ModelTemplates
    lease: Lease
    renderer: Renderer | None
    tools: Sequence[Tool]
    think: Think | None
    truncate: bool
    native: bool
    """Whether the model file's own template renders. Without one, chats get the default of such templates, while a
    prompt to be completed is taken as it is."""
    marks: bool
    """Whether markers of media are put into the messages before they are rendered; native chat renders them itself."""
    reads: bool = False
    """True if the answer is read in the layout of the model file's own template."""

    async def prompt(
        self, messages: Sequence[Message], output: OutputConstraint | None = None, *, early: bool = False
    ) -> RenderedPrompt:
        """Render the messages, without the oldest if they do not fit. TemplateError: the template refuses.

        Where the model file's own template renders, the demanded form is looked at first (InvalidFormatError). `early`:
        whether an error comes up before the request is run; it does too where messages might be left out, since the
        reference then renders them first.
        """
        try:
            if self.native:
                output_constraint(output)
            return await self._prompt(messages)
        except PunaError as error:
            error.early = early or (self._drops and len(messages) > 1)
            raise

    async def _prompt(self, messages: Sequence[Message]) -> RenderedPrompt:
        if self.native and not self.marks and any(message.media for message in messages):
            facts = self.lease.facts
            if not (facts.vision or facts.audio):
                raise MediaUnsupportedError
        if self.model.config.model_family == "mllama":
            refuse_several_images(messages)
        fitted = await fit(
            messages,
            self._render,
            self._count,
            self.lease.facts.context_length if self._drops else None,
            per_image=TOKENS_PER_IMAGE if self.model.projector_paths else 0,
            mark=self.marks,
        )
        return RenderedPrompt(fitted.prompt.text, fitted.media, fitted.prompt.answer_prefix)

    @property
    def _drops(self) -> bool:
        return self.truncate and self.model.config.model_format != "safetensors"

    async def _render(self, messages: Sequence[Message]) -> RenderedPrompt:
        if self.native:
            if self.marks:
                messages = [replace(each, media=()) if each.media else each for each in messages]
            template = self.templates.chat_template(self.lease.facts)
            return await template.turn(messages, self.tools, self.think, reads=self.reads)
        if self.renderer is not None:
            return RenderedPrompt(self.renderer.render(messages, self.tools, self.think))
        return RenderedPrompt(await self.templates.template.render(messages, self.tools, self.think))

    async def _count(self, text: str) -> int:
        limit = self.lease.facts.context_length
        if is_long(text, limit):
            return len((await head(self.lease.model, text, limit + 1)).tokens)
        return len(await self.lease.model.tokenize(text, add_special=False, parse_special=True))


def assembled(model: StoredModel, preset: Sequence[Message], system: str, said: Sequence[Message]) -> list[Message]:
    """Return all messages of a conversation, old thinking removed for models that are known not to want it."""
    messages = assemble(preset, system, said)
    if model.config.model_family == "qwen3" or model.name.model == "deepseek-r1":
        return strip_old_thinking(messages)
    return messages
