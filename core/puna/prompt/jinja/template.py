"""A chat template of a model file: renders prompts as llama.cpp does, with the same repairs, and makes answer parsers.

A template is compiled once. Its abilities are probed and its layout is derived once, when they are first needed.

A conversation is rendered twice for a prompt, without and with the text that asks for an answer: the difference is the
opening of the model's turn. It is divided into a head, which introduces the turn, and the beginning of the answer, such
as an opening tag of thinking, which the parser of the answer has to know. An answer that the client began takes the
place of the opening's second part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateSyntaxError

from puna.errors import TemplateError, TemplateRefusedError
from puna.messages import Message, Think, Tool
from puna.prompt import media_markers
from puna.prompt.jinja import known, parsers
from puna.prompt.jinja.derive import derive
from puna.prompt.jinja.environment import FAILURES, ChatEnvironment, RaisedByTemplateError, place_in_source
from puna.prompt.jinja.probe import Abilities, probe
from puna.prompt.jinja.repairs import conversation
from puna.prompt.jinja.tools import tool_objects
from puna.prompt.layout import OutputLayout
from puna.prompt.parsed import AnswerParser
from puna.prompt.rendered import RenderedPrompt
from puna.prompt.value import Value

DEFAULT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of files that have none: ChatML."""

_KEPT_REASONING: Final = {
    "preserve_reasoning": True,
    "preserve_thinking": True,
    "clear_thinking": False,
    "truncate_history_thinking": False,
    "drop_thinking": False,
}
"""The variables that make templates of several makers keep the thoughts of earlier turns."""


class Template:
    """A compiled template with its abilities and its layout."""

    def __init__(self, source: str, bos_text: str, eos_text: str) -> None:
        """Compile; raises TemplateError."""
        # jinja2 normalizes line ends too, and places in error texts are counted in this text.
        self.source = source.replace("\r\n", "\n").replace("\r", "\n")
        self._texts = {"bos_token": bos_text, "eos_token": eos_text}
        # Offsets in errors are those of the compiled text, from which a patch may have removed a check.
        self._compiled_source = known.patched(self.source)
        try:
            self._render = ChatEnvironment().compiled(self._compiled_source)
        except (TemplateSyntaxError, RecursionError) as error:
            raise TemplateError(f"error: parser: Parser Error: {error}") from error

    @cached_property
    def abilities(self) -> Abilities:
        """What the template does with its input."""
        return probe(self._compiled_source)

    @cached_property
    def layout(self) -> OutputLayout:
        """The layout of the model's answers."""
        return known.layout(self.source) or known.corrected(self.derived, self.source)

    @cached_property
    def derived(self) -> OutputLayout:
        """The part of that layout that the template itself shows."""
        return derive(self._try, self.abilities)

    def _try(self, messages: list[dict[str, Any]], **variables: Value) -> str | None:
        """Render for analysis; None if the template fails."""
        try:
            return self._render({"messages": messages, **self._texts, **variables})
        except FAILURES:
            return None

    def apply(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        """Render. Raises TemplateRefusedError with llama.cpp's text."""
        try:
            return self._render({"messages": messages, **self._texts, **variables})
        except RaisedByTemplateError as error:
            text = f"Jinja Exception: {error.raised.message}"
            if error.raised.offset >= 0:
                text = place_in_source(self._compiled_source, error.raised.offset, "CallExpression", text)
            raise TemplateRefusedError(self._refusal + text) from error
        except FAILURES as error:
            raise TemplateRefusedError(f"{self._refusal}\nError: {error}") from error

    @property
    def _refusal(self) -> str:
        if known.layout(self.source):
            return ""
        return "Unable to generate parser for this template. Automatic parser generation failed: "


class ChatTemplate:
    """A model's chat template. Safe to share: rendering keeps no state."""

    def __init__(
        self,
        source: str,
        bos_text: str = "",
        eos_text: str = "",
        *,
        tool_source: str = "",
        adds_bos: bool = False,
        adds_eos: bool = False,
    ) -> None:
        """Compile a template, or the default one if the source is empty; raises TemplateError.

        tool_source: the variant for conversations with tools (`tokenizer.chat_template.tool_use`), if there is one.
        adds_bos, adds_eos: the tokenizer adds these tokens, so their texts are cut from the prompt.
        """
        # llama.cpp takes the word "chatml" for its own template.
        if source in ("", "chatml"):
            source = tool_source or DEFAULT_TEMPLATE
        self._plain = Template(source, bos_text, eos_text)
        # A second template is compiled only where the model brings one for conversations with tools.
        self._for_tools = Template(tool_source, bos_text, eos_text) if tool_source else self._plain
        self._bos = bos_text if adds_bos else ""
        self._eos = eos_text if adds_eos else ""

    def layout(self, *, tools: bool = False) -> OutputLayout:
        """Return the layout of answers, in conversations with or without tools."""
        return (self._for_tools if tools else self._plain).layout

    def derived(self, *, tools: bool = False) -> OutputLayout:
        """Return the part of the layout that the template shows. `layout` corrects it for known templates."""
        return (self._for_tools if tools else self._plain).derived

    def turn(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, think: Think | None = None
    ) -> RenderedPrompt:
        """Return the prompt as `render` does, with the beginning of the answer in it. Raises as `render` does."""
        prefill = _prefill(messages)
        shown = self._shown(messages[:-1] if prefill else messages, tools, think)
        # The difference between the two is all that the template writes for the model's turn.
        without, prompt = self._apply(shown, generation=False), self._apply(shown, generation=True)
        head, answer_prefix = _opening(shown, prefill, without, prompt)
        return RenderedPrompt(
            prompt if prefill is None else without + head + answer_prefix, answer_prefix=answer_prefix
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        think: Think | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the prompt. An assistant message at the end stays open, so that the model goes on with it.

        Images are markers "[img-N]", numbered from 0 over the messages. Raises TemplateRefusedError if the template
        raises or fails.
        """
        prefill = _prefill(messages) if add_generation_prompt else None
        shown = self._shown(messages[:-1] if prefill else messages, tools, think)
        if not add_generation_prompt:
            return self._apply(shown, generation=False)
        if prefill is None:
            return self._apply(shown, generation=True)
        return self.turn(messages, tools, think=think).text

    def parser(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), *, think: Think | None = None
    ) -> AnswerParser:
        """Return a fresh parser of the answer to these messages. Raises as `render` does."""
        layout = self.layout(tools=bool(tools))
        return parsers.parser(layout, tools, self.turn(messages, tools, think=think).answer_prefix, think)

    def _shown(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> "_Shown":
        template = self._for_tools if tools else self._plain
        dicts = conversation(messages, template.abilities, developer="<|channel|>" in template.source)
        return _Shown(template, known.adjusted(dicts, template.source), _variables(tools, think, template))

    def _apply(self, shown: "_Shown", *, generation: bool) -> str:
        more = {"add_generation_prompt": True} if generation else {}
        text = shown.template.apply(shown.messages, shown.variables | more)
        if generation:
            text = known.opened(text, shown.template.source)
        # The tokenizer adds these tokens itself; twice they would confuse the model.
        if self._bos and text.startswith(self._bos):
            text = text[len(self._bos) :]
        if self._eos and text.endswith(self._eos):
            text = text[: -len(self._eos)]
        return text


@dataclass(frozen=True, slots=True)
class _Shown:
    """The input of a template."""

    template: Template
    messages: list[dict[str, Any]]
    variables: dict[str, Any]


def _opening(shown: _Shown, prefill: Message | None, without: str, prompt: str) -> tuple[str, str]:
    """Return the opening of the model's turn: its head, and the beginning of the answer.

    `without` and `prompt` are the conversation without and with the text that asks for an answer.
    """
    turn = prompt[_shared(without, prompt) :]
    layout = shown.template.layout
    start = layout.thinking_start.strip()
    # The marker of thinking belongs to the answer: the parser must see it to know that the model is thinking.
    head = turn.partition(start)[0] if start and start in turn else turn
    if prefill is None:
        return head, turn[len(head) :]
    answer_prefix = layout.thinking_start + layout.thinking_end if layout.thinks and start else ""
    answer_prefix = answer_prefix if layout.before_prefill is None else layout.before_prefill
    if prefill.media_at:
        return head, answer_prefix + "".join(media_markers.marked(prefill, 0))
    return head, answer_prefix + prefill.content + "".join([f"[img-{index}]" for index, _ in enumerate(prefill.media)])


def _prefill(messages: Sequence[Message]) -> Message | None:
    """Return the last message if it is an answer that the client began. Raises TemplateRefusedError."""
    if not messages or messages[-1].role != "assistant":
        return None
    # llama.cpp refuses both, and its words reach the client.
    if len(messages) >= 2 and messages[-2].role == "assistant":
        raise TemplateRefusedError("Cannot have 2 or more assistant messages at the end of the list.")
    if messages[-1].tool_calls:
        raise TemplateRefusedError("Cannot continue an assistant message that contains tool calls.")
    return messages[-1]


def _variables(tools: Sequence[Tool], think: Think | None, template: Template) -> dict[str, Any]:
    now = datetime.now()
    out: dict[str, Any] = {
        "enable_thinking": think.on if think else template.layout.thinks,
        # Templates expect these variables of llama.cpp; the local date is that of the server.
        "datetime": now.strftime("%b %d %Y"),
        "date_string": now.strftime("%d %b %Y"),
        # Templates ignore variables that they do not know, so all spellings are set.
        **_KEPT_REASONING,
        **known.variables(template.source, think),
    }
    if think and think.level:
        out |= {"reasoning_effort": think.level, "reasoning_strength": think.level}
    if tools:
        try:
            out["tools"] = tool_objects(tools)
        except ValueError as error:
            raise TemplateRefusedError(f"Failed to parse tools: {error}") from error
    return out


def _shared(left: str, right: str) -> int:
    """Return the length of the common start of two texts, by bisection: prompts may have millions of characters."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
