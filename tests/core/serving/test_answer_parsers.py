"""Which deltas a client sees for the texts that a model writes, as recorded from Ollama's streams."""

import re

from puna.backend import TextDelta, TokenLogprob
from puna.messages import Tool
from puna.prompt.builtin.registry import parser as builtin
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.serving.answer_parsers import AnswerReader, plain
from puna.serving.answers import Delta

LOGPROBS = (TokenLogprob(raw=b"x", token_id=1, logprob=-0.5),)
TOOLS = [Tool(name="add")]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def decoded(text: str, *, logprobs: bool = False) -> TextDelta:
    return TextDelta(text, LOGPROBS if logprobs else ())


def thinking() -> ThinkingParser:
    return ThinkingParser("<think>", "</think>")


def calling() -> ToolCallParser:
    return ToolCallParser(TOOLS, "<tool_call>")


def qwen3() -> AnswerReader:
    parser = builtin("qwen3")
    assert parser is not None
    parser.init(TOOLS, None, None)
    return AnswerReader(parser)


def test_an_answer_that_is_not_parsed_has_a_delta_for_every_text() -> None:
    assert plain().feed(decoded("")) == (Delta(),)
    assert plain().feed(decoded("<think>")) == (Delta(text="<think>"),)


def test_thinking_that_is_held_back_hides_the_log_probabilities_in_chat_but_not_in_generate() -> None:
    chat = AnswerReader(GoTemplateParser(thinking()))
    generate = AnswerReader(GoTemplateParser(thinking()), sends_empty=True)
    assert chat.feed(decoded("<think", logprobs=True)) == ()
    assert generate.feed(decoded("<think", logprobs=True)) == (Delta(logprobs=LOGPROBS),)


def test_a_call_that_is_held_back_shows_its_log_probabilities_alone() -> None:
    reader = AnswerReader(GoTemplateParser(None, calling()), splits_calls=True)
    assert reader.feed(decoded("<tool", logprobs=True)) == (Delta(logprobs=LOGPROBS),)
    assert reader.feed(decoded("_call>")) == ()


def test_calls_follow_the_content_of_their_text_in_a_delta_of_their_own() -> None:
    reader = AnswerReader(GoTemplateParser(None, calling()), splits_calls=True)
    content, calls = reader.feed(decoded(f"Sum: {CALL}", logprobs=True))
    assert content == Delta(text="Sum: ", logprobs=LOGPROBS)
    assert [(call.name, call.arguments) for call in calls.tool_calls] == [("add", '{"a":1}')]
    assert (calls.text, calls.logprobs) == ("", ())


def test_calls_without_an_id_get_one_in_chat() -> None:
    (delta,) = qwen3().feed(decoded(CALL))
    (call,) = delta.tool_calls
    assert re.fullmatch("call_[a-z0-9]{8}", call.id)


def test_calls_come_with_the_end_and_without_ids_in_generate() -> None:
    parser = builtin("qwen3")
    assert parser is not None
    parser.init(TOOLS, None, None)
    reader = AnswerReader(parser, calls_at_end=True)
    assert reader.feed(decoded(CALL)) == ()
    assert [(call.name, call.id) for call in reader.finish().tool_calls] == [("add", "")]


def test_the_end_brings_what_was_held_back() -> None:
    reader = AnswerReader(GoTemplateParser(thinking(), ToolCallParser(TOOLS, "{")), splits_calls=True)
    assert reader.feed(decoded('{"name": "ad')) == ()
    assert reader.finish() == Delta(text='{"name": "ad')
