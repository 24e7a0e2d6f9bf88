"""Pure judges of answers: is this what the case wanted?"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from train_demo.cases import Case


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered, its REST form taken apart; ``calls`` are (name, arguments)."""

    content: str
    thinking: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    done_reason: str = "stop"


def right(case: Case, reply: Reply) -> bool:
    """Whether the answer itself is right; thinking and the clean end are judged apart."""
    content, expected = reply.content.strip(), case.expected
    match case.grader:
        case "equals":
            return content == expected and not reply.calls
        case "contains":
            return all(part in content for part in expected)
        case "contains without calls":
            return all(part in content for part in expected) and not reply.calls
        case "last number":
            numbers = re.findall(r"\d+", content)
            return bool(numbers) and int(numbers[-1]) == expected
        case "json":
            try:
                return json.dumps(json.loads(content)) == json.dumps(expected)  # the order counts
            except json.JSONDecodeError:
                return False
        case "call":
            name, arguments = expected
            return reply.calls == [(name, arguments)] and not content
        case "tells":
            return _tells(case, reply)
        case unknown:
            raise ValueError(f"no grader is called {unknown!r}")


def _tells(case: Case, reply: Reply) -> bool:
    """Whether the answer holds every part, each whole, in words: no JSON, no number from nowhere, no call."""
    known = set(re.findall(r"\d+", " ".join(str(message) for message in case.messages)))
    return (
        all(re.search(rf"(?<![\w.]){re.escape(part)}(?!\w)", reply.content) for part in case.expected)
        and not set('{}[]"') & set(reply.content)
        and set(re.findall(r"\d+", reply.content)) <= known
        and not reply.calls
    )


def thought_as_asked(case: Case, reply: Reply) -> bool:
    """Thinking stands where it was asked for, and nowhere else."""
    if "<think>" in reply.content or "</think>" in reply.content:
        return False
    return bool(reply.thinking.strip()) == case.think


def stopped(reply: Reply) -> bool:
    """The model ended its answer itself, and left no marker in it."""
    return reply.done_reason == "stop" and "<|" not in reply.content and "<tool_call>" not in reply.content
