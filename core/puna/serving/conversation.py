"""Renders the prompt of a conversation, truncated to the context by whole messages.

There are three ways to render: the model file's Jinja template (`native`), a builtin renderer that the model names, and
its Go template. Truncation drops the oldest messages until the prompt fits; it never cuts a message.
"""

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

# The same estimate as Ollama's, so that both drop the same messages.
TOKENS_PER_IMAGE: Final = 768
"""Estimated tokens of an image, used before any image is encoded."""


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
    """Whether the model file's Jinja template renders. If the file has none, a chat uses a default one, and a prompt to
    complete is used as it is."""
    marks: bool
    """Whether media markers are put into the messages before they are rendered. A Jinja template writes its own."""
    reads: bool = False
    """Whether the answer is read in the output layout of the Jinja template."""

    async def prompt(
        self, messages: Sequence[Message], constraint: OutputConstraint | None = None, *, early: bool = False
    ) -> RenderedPrompt:
        """Render the messages, without the oldest ones if they do not fit. Raises TemplateError.

        With a Jinja template the constraint is checked first (InvalidFormatError). An error is marked as `early`, that
        is, raised before the request runs, if the caller says so, or if messages may be dropped, since Ollama then
        renders them early.
        """
        try:
            if self.native:
                output_constraint(constraint)
            return await self._prompt(messages)
        except PunaError as error:
            error.early = early or (self._drops and len(messages) > 1)
            raise

    async def _prompt(self, messages: Sequence[Message]) -> RenderedPrompt:
        # Refused before rendering: the template would write a marker for each image, whether or not the model takes
        # images.
        if self.native and not self.marks and any(message.media for message in messages):
            facts = self.lease.facts
            if not (facts.vision or facts.audio):
                raise MediaUnsupportedError
        if self.model.config.model_family == "mllama":
            # The architecture has cross-attention to a single image.
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
        facts = self.lease.facts
        # Whether a prompt fits is known only by counting its tokens.
        countable = facts.tokenizer and facts.context_length > 0
        return self.truncate and countable and self.model.config.model_format != "safetensors"

    async def _render(self, messages: Sequence[Message]) -> RenderedPrompt:
        if self.native:
            if self.marks:
                # Markers stand in the text already. A template that saw the media would write them a second time.
                messages = [replace(each, media=(), media_at=()) if each.media else each for each in messages]
            template = self.templates.chat_template(self.lease.facts)
            return await template.turn(messages, self.tools, self.think, reads=self.reads)
        if self.renderer is not None:
            return RenderedPrompt(self.renderer.render(messages, self.tools, self.think))
        return RenderedPrompt(await self.templates.template.render(messages, self.tools, self.think))

    async def _count(self, text: str) -> int:
        limit = self.lease.facts.context_length
        # The count only decides whether the text fits, so it may stop one token above the limit.
        if is_long(text, limit):
            return len((await head(self.lease.model, text, limit + 1)).tokens)
        return len(await self.lease.model.tokenize(text, add_special=False, parse_special=True))


def assembled(model: StoredModel, preset: Sequence[Message], system: str, said: Sequence[Message]) -> list[Message]:
    """Return all messages of a conversation, without old thinking for models that are known not to expect it."""
    messages = assemble(preset, system, said)
    if model.config.model_family == "qwen3" or model.name.model == "deepseek-r1":
        return strip_old_thinking(messages)
    return messages
