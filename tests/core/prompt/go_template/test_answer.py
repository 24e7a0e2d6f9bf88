from puna.messages import Tool
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.parsed import ParsedDelta

CALL = '<call>{"name": "get", "arguments": {}}'


def parser(*, thinks: bool = True, calls: bool = True) -> GoTemplateParser:
    return GoTemplateParser(
        ThinkingParser("<t>", "</t>") if thinks else None,
        ToolCallParser([Tool(name="get")], "<call>") if calls else None,
    )


def test_without_parsers_everything_is_content() -> None:
    assert parser(thinks=False, calls=False).feed("<t>a") == ParsedDelta("<t>a")


def test_calls_are_searched_in_content_only() -> None:
    delta = parser().feed(f"<t>{CALL}</t>Look.{CALL}")
    assert (delta.thinking, delta.content, [call.name for call in delta.calls]) == (CALL, "Look.", ["get"])


def test_a_text_waits_only_while_thinking_holds_all_of_it_back() -> None:
    made = parser()
    assert made.feed("<t").waits
    assert not made.feed(">a</t>b").waits
    assert not made.feed("<ca").waits


def test_the_end_gives_back_what_looked_like_a_call_with_a_bare_bracket() -> None:
    made = GoTemplateParser(None, ToolCallParser([Tool(name="get")], "{"))
    assert made.feed('{"a"').content == ""
    assert made.finish().content == '{"a"'
