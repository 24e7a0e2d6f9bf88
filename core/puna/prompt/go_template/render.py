"""Renders conversations through Go templates of three kinds.

A template that knows `.Messages` gets all messages at once. An older one knows one `.Prompt` and one `.Response` and is
run once for each turn, the last time only up to its `.Response`. A template with `.Suffix` fills a gap in a text.
"""

from collections.abc import Sequence
from dataclasses import replace

from puna.errors import TemplateError
from puna.go.template import facts
from puna.go.template.budget import Budget
from puna.go.template.functions import BUILTINS
from puna.go.template.template import Template
from puna.messages import Message, Think, Tool
from puna.prompt.go_template import template_data
from puna.prompt.go_template.prefill import cut_after_response


def render_go(
    template: Template,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    think: Think | None,
    budget: Budget | None = None,
) -> str:
    """Render a conversation. Raises TemplateError with Go's text, and BudgetSpentError where there is a budget."""
    # System messages appear in `.System` and again in `.Messages`; the template decides which it prints.
    system, collated = collate(messages)
    if "messages" not in facts.identifiers(template):
        return _render_turns(template, collated, think, budget)
    return template.execute(
        {
            "System": system,
            "Messages": template_data.messages(collated),
            "Tools": template_data.tools(tools),
            "Response": "",
            **template_data.thinking(think),
        },
        budget=budget,
    )


def render_suffix(
    template: Template, prompt: str, suffix: str, think: Think | None, budget: Budget | None = None
) -> str:
    """Render the text before and after a gap that the model is to fill. Raises as `render_go` does."""
    data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **template_data.thinking(think)}
    return template.execute(data, budget=budget)


def collate(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Join the contents of neighbours with the same role, except tools; return the joined system messages and the rest.

    A message that is joined to the one before it keeps only its content.
    """
    collated: list[Message] = []
    for message in messages:
        if collated and message.role == collated[-1].role != "tool":
            # Ollama joins only contents: images and calls of a joined message are lost.
            joined = f"{collated[-1].content}\n\n{message.content}"
            collated[-1] = replace(collated[-1], content=joined)
        else:
            collated.append(message)
    return "\n\n".join(message.content for message in messages if message.role == "system"), collated


def _render_turns(template: Template, messages: Sequence[Message], think: Think | None, budget: Budget | None) -> str:
    """Render turn by turn, for a template that knows one prompt and one response."""
    out: list[str] = []
    flags = template_data.thinking(think)
    turn = {"System": "", "Prompt": "", "Response": ""}

    def finish() -> None:
        out.append(template.execute({**turn, **flags}, budget=budget))
        turn.update(System="", Prompt="", Response="")

    for message in messages:
        match message.role:
            # A role that would overwrite a later part of the turn ends it.
            case "system":
                # A system message belongs in front of the prompt, so it cannot join a turn that has one.
                if turn["Prompt"] or turn["Response"]:
                    finish()
                turn["System"] = message.content
            case "user":
                if turn["Response"]:
                    finish()
                turn["Prompt"] = message.content
            case "assistant":
                turn["Response"] = message.content
    last = cut_after_response(template)
    if last is None:
        # Ollama's handler panics here, and its answer is a 500 without a text.
        raise TemplateError("template: .Response in an if with an else")
    # Ollama parses this template anew, without its own functions and without its option for missing keys.
    out.append(last.execute({**turn, **flags}, functions=BUILTINS, lenient=True, budget=budget))
    return "".join(out)
