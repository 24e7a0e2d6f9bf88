"""The interactive prompt of `run`: messages, commands, history. Ctrl-C stops an answer, not the program."""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc.aio
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.plain_text import PlainTextOutput

from puna.cli import modelfile, terminal, typed_ahead
from puna.cli.client import text_of
from puna.cli.conversation import LEVELS, Conversation
from puna.cli.errors import CommandError
from puna.cli.listing import list_models
from puna.cli.show import sections
from puna.cli.talk import answer, take_media
from puna.cli.texts import readable
from puna.cli.waiting import Waiting
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc

HELP: Final = """Commands:
  /set            Change a setting of this conversation
  /show           Show what is known about the model
  /load <model>   Go on with another model, or with a saved conversation
  /save <model>   Save this conversation as a model
  /clear          Forget the messages so far
  /bye            Leave
  /?, /help       Explain a command: /? set
  /? shortcuts    List the keys

Three quotes (\"\"\") begin and end a message of several lines.
"""
SET_HELP: Final = """Commands:
  /set parameter ...     Set a sampling or load parameter
  /set system <string>   Set the system message
  /set history           Remember what is typed here
  /set nohistory         Remember nothing that is typed here
  /set wordwrap          Break lines between words
  /set nowordwrap        Break lines where the terminal does
  /set format json       Answer in JSON
  /set noformat          Answer in any form
  /set verbose           Show tokens and durations after each answer
  /set quiet             Show answers alone
  /set think             Let the model think first
  /set nothink           Let the model answer at once
"""
PARAMETERS_HELP: Final = """Parameters:
  /set parameter seed <int>             Seed of the random numbers
  /set parameter num_predict <int>      Tokens of an answer at most
  /set parameter top_k <int>            Choose among this many tokens
  /set parameter top_p <float>          Choose among tokens that have this probability together
  /set parameter min_p <float>          Choose among tokens that are this probable, beside the most probable
  /set parameter num_ctx <int>          Tokens of context
  /set parameter temperature <float>    How freely tokens are chosen; 0: the most probable
  /set parameter repeat_penalty <float> Weight against repetition
  /set parameter repeat_last_n <int>    Tokens in which repetition is looked for
  /set parameter num_gpu <int>          Layers on the GPU
  /set parameter num_keep <int>         Tokens of the prompt that stay when the context is full
  /set parameter stop <string> ...      Texts that end an answer
"""
SHOW_HELP: Final = """Commands:
  /show info         Architecture, size, context length and capabilities
  /show license      License
  /show modelfile    Modelfile that makes this model again
  /show parameters   Parameters of the model, and those set here
  /show system       System message
  /show template     Prompt template
"""
SHORTCUTS: Final = """Keys:
  Ctrl + a, Home      Go to the start of the line
  Ctrl + e, End       Go to the end of the line
  Alt + b             Go back by a word
  Alt + f             Go forward by a word
  Ctrl + k            Delete from the cursor to the end of the line
  Ctrl + u            Delete from the start of the line to the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + j            Begin a new line of the same message
  Ctrl + l            Clear the screen
  Ctrl + c            Stop the answer
  Ctrl + d            Leave
"""
MISSING: Final = {
    "license": "No license was specified for this model.",
    "parameters": "No additional parameters were specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
    "modelfile": "",
}
QUOTES: Final = '"""'


async def converse(
    channel: grpc.aio.Channel,
    settings: Settings,
    conversation: Conversation,
    model: models_pb2.GetModelResponse,
    arguments: argparse.Namespace,
) -> None:
    """Read and answer messages until the user leaves."""
    repl = _Repl(channel, settings, conversation, arguments)
    with Waiting():
        await conversation.load(channel)
    for message in model.messages:
        print(f">>> {message.content}" if message.role == "user" else message.content)
    await repl.loop()


class _Repl:
    def __init__(
        self, channel: grpc.aio.Channel, settings: Settings, conversation: Conversation, arguments: argparse.Namespace
    ) -> None:
        self._channel, self._settings, self._conversation, self._told = channel, settings, conversation, arguments
        self._models = models_pb2_grpc.ModelsServiceStub(channel)
        self._lines: list[str] = []
        self._beginning = ""
        # On a terminal that cannot move its cursor, prompt_toolkit would still write a few sequences.
        output = None if terminal.interactive(sys.stdout) else PlainTextOutput(sys.stdout)
        self._session: PromptSession[str] = PromptSession(
            history=_history(settings), key_bindings=_keys(), output=output
        )
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/clear": self._clear,
            "/list": self._list,
            "/?": self._help,
            "/help": self._help,
        }

    async def loop(self) -> None:
        self._lines, beginning = typed_ahead.lines()
        # An incomplete line becomes the beginning of the prompt. Cursor keys that were pressed early would put control
        # characters there.
        self._beginning = beginning if beginning.isprintable() else ""
        while True:
            try:
                text = await self._read()
            # prompt_toolkit raises this for Ctrl-C at the prompt. During an answer `_answer` handles the key.
            except KeyboardInterrupt:
                print("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                return
            word = text.split(maxsplit=1)[0] if text.strip() else ""
            if word in ("/bye", "/exit"):
                return
            try:
                if word in self._commands:
                    await self._commands[word](text.strip()[len(word) :].strip())
                # A message may begin with the path of an image, which must not pass for a command.
                elif word.startswith("/") and not os.path.exists(word):  # noqa: ASYNC240, PTH110 (one stat of a typed word)
                    print(f"Unknown command '{word}'. Type /? for help")
                elif word:
                    await self._answer(text)
            except CommandError as error:
                print(f"Error: {error}")
            except grpc.aio.AioRpcError as error:
                print(f"Error: {text_of(error, self._settings)}")

    async def _read(self) -> str:
        placeholder = HTML("<style fg='ansibrightblack'>Send a message (/? for help)</style>")
        if self._lines:
            text = self._lines.pop(0)
            print(f">>> {text}")
        else:
            beginning, self._beginning = self._beginning, ""
            text = await self._session.prompt_async(">>> ", placeholder=placeholder, default=beginning)
        text = readable(text)
        head, opened, rest = text.partition(QUOTES)
        # Quotes in the middle of a message are part of it.
        if not opened or (head.strip() and not head.startswith("/set system")):
            return text
        while not rest.rstrip().endswith(QUOTES):
            rest += "\n" + readable(await self._session.prompt_async("... "))
        return head + rest.rstrip().removesuffix(QUOTES)

    async def _answer(self, text: str) -> None:
        """Send a message and print the answer. Ctrl-C stops it."""
        said, media = take_media(text)
        work = asyncio.ensure_future(answer(self._channel, self._conversation, said, media, self._told))
        loop = asyncio.get_running_loop()
        # The default handler would raise KeyboardInterrupt in the middle of the event loop and end the program.
        loop.add_signal_handler(signal.SIGINT, work.cancel)
        try:
            await work
            print()
            terminal.note_replaced()
        except asyncio.CancelledError:
            print("\n")
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    async def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        values = value.split()
        if what == "parameter" and len(values) < 2:
            print(PARAMETERS_HELP)
            return
        conversation, arguments = self._conversation, self._told
        if what == "parameter":
            self._set_parameter(values[0], values[1:])
        elif what == "system" and values:
            conversation.set_system(value.strip())
            print("Set system message.")
        elif what == "format" and values == ["json"]:
            conversation.format = "json"
            print("Set format to 'json' mode.")
        elif what == "noformat":
            conversation.format = ""
            print("Disabled format.")
        elif what in ("verbose", "quiet"):
            arguments.verbose = what == "verbose"
            print(f"Set '{what}' mode.")
        elif what in ("wordwrap", "nowordwrap"):
            arguments.nowordwrap = what == "nowordwrap"
            print(f"Set '{what}' mode.")
        elif what == "think" and (not values or values[0] in LEVELS):
            conversation.think = values[0] if values else "true"
            print(f"Set 'think' mode to '{values[0]}'." if values else "Set 'think' mode.")
        elif what == "nothink":
            conversation.think = "false"
            print("Set 'nothink' mode.")
        elif what in ("history", "nohistory"):
            self._session.history = _history(self._settings) if what == "history" else InMemoryHistory()
        elif what in ("", "system", "format"):
            print(SET_HELP)
        else:
            print(f"Unknown command '/set {rest}'. Type /? set for help")

    def _set_parameter(self, name: str, values: list[str]) -> None:
        try:
            found = modelfile.parameters([modelfile.Command(name, each, is_parameter=True) for each in values])
        except CommandError as error:
            print(f'Couldn\'t set parameter: "{error}"')
            return
        self._conversation.parameters |= found
        print(f"Set parameter '{name}' to '{', '.join(values)}'")

    async def _show(self, what: str) -> None:
        if what != "info" and what not in MISSING:
            print(f"Unknown command '/show {what}'. Type /? show for help" if what else SHOW_HELP)
            return
        conversation = self._conversation
        model = await self._models.GetModel(
            models_pb2.GetModelRequest(
                name=conversation.model,
                system=conversation.system,
                options_json=json.dumps(conversation.parameters) if conversation.parameters else "",
            )
        )
        if what == "info":
            print("\n".join(sections(model, verbose=False)))
        elif what == "parameters":
            self._show_parameters(model.parameters)
        else:
            print(getattr(model, what) or MISSING[what])

    def _show_parameters(self, of_model: str) -> None:
        print("Parameters of the model:")
        print("\n".join(f"  {line}" for line in of_model.splitlines()) or f"  {MISSING['parameters']}")
        if self._conversation.parameters:
            print("\nParameters set here:")
            for name, value in self._conversation.parameters.items():
                values = value if isinstance(value, list) else [value]
                print("\n".join(f"  {name:<30} {json.dumps(each)}" for each in values))

    async def _load(self, name: str) -> None:
        if len(name.split()) != 1:
            print("Usage:\n  /load <modelname>")
            return
        print(f"Loading model '{name}'")
        # A copy, so that the old conversation goes on if the model cannot be loaded.
        fresh = replace(self._conversation, model=name, finish=None)
        fresh.clear()
        try:
            with Waiting():
                await fresh.load(self._channel)
        except grpc.aio.AioRpcError as error:
            # Other errors are printed by the loop.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            print(f"Couldn't find model '{name}'")
            return
        self._conversation = fresh

    async def _save(self, name: str) -> None:
        if len(name.split()) != 1:
            print("Usage:\n  /save <modelname>")
            return
        conversation = self._conversation
        request = models_pb2.CreateModelRequest(
            name=name,
            system=conversation.system,
            messages=conversation.messages,
            parameters_json=json.dumps(conversation.parameters) if conversation.parameters else "",
        )
        request.from_model = conversation.model
        # The call ends only when its stream is read to the end.
        async for _ in self._models.CreateModel(request):
            pass
        print(f"Created new model '{name}'")

    async def _clear(self, _rest: str) -> None:
        self._conversation.clear()
        print("Cleared session context")

    async def _list(self, _rest: str) -> None:
        await list_models(self._settings, "", as_json=False)

    async def _help(self, about: str) -> None:
        texts = {"set": SET_HELP, "/set": SET_HELP, "show": SHOW_HELP, "/show": SHOW_HELP, "shortcuts": SHORTCUTS}
        print(texts.get(about, HELP))


def _history(settings: Settings) -> FileHistory | InMemoryHistory:
    if not settings.history:
        return InMemoryHistory()
    path = Path.home() / ".ollama" / "puna_history"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileHistory(str(path))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-j")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
