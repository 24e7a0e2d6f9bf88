"""One exchange with a model: media files named in the prompt, and printing of the answer while it arrives."""

import argparse
import re
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import grpc.aio

from puna.cli import terminal
from puna.cli.conversation import Conversation
from puna.cli.errors import CommandError
from puna.cli.tables import SECOND, duration
from puna.cli.waiting import Waiting
from puna.cli.wrapping import Wrapper
from puna_client.v1 import usage_pb2

GREY, PLAIN = "\x1b[90m", "\x1b[0m"
# A path ends with one of the endings. Blanks in it are escaped, as terminals write a file that is dropped onto them.
MEDIA = re.compile(r"(?:[a-zA-Z]:)?(?:\.{0,2}/|~)?(?:\\ |[^\s'\"\\])+\.(?:jpe?g|png|webp|wav)\b", re.IGNORECASE)
LARGEST_MEDIA = 100 * 1024 * 1024
NARROWEST = 10
"""Columns of a terminal below which lines are not wrapped."""


def take_media(prompt: str) -> tuple[str, list[bytes]]:
    """Remove names of existing image and sound files from a prompt. Return the rest and the files' bytes."""
    media: list[bytes] = []
    for match in MEDIA.finditer(prompt):
        path = Path(match[0].replace("\\ ", " ")).expanduser()
        # A text that only looks like a path stays in the prompt.
        if not path.is_file():
            continue
        # Checked before the whole file is read into memory.
        if path.stat().st_size > LARGEST_MEDIA:
            raise CommandError(f"{path}: larger than 100 MB")
        kind = "audio" if path.suffix.lower() == ".wav" else "image"
        print(f"Added {kind} '{path}'", file=sys.stderr)
        media.append(path.read_bytes())
        prompt = prompt.replace(match[0], "")
    return (prompt.strip() if media else prompt), media


async def answer(
    channel: grpc.aio.Channel, conversation: Conversation, text: str, media: list[bytes], arguments: argparse.Namespace
) -> None:
    """Send a message and print the answer while it arrives."""
    color = terminal.colored(sys.stdout)
    thinking = False
    write = _writer(arguments)
    with Waiting() as waiting:
        async with aclosing(conversation.ask(channel, text, media)) as deltas:
            async for delta in deltas:
                if delta.content or (delta.thinking and not arguments.hidethinking):
                    waiting.stop()
                if delta.thinking and not arguments.hidethinking:
                    if not thinking:
                        print(f"{GREY if color else ''}Thinking...")
                        thinking = True
                    write(delta.thinking)
                if delta.content:
                    if thinking:
                        print(f"\n...done thinking.{PLAIN if color else ''}\n")
                        thinking = False
                        # A new wrapper, since the content begins in the first column.
                        write = _writer(arguments)
                    write(delta.content)
    print()
    if arguments.verbose and conversation.finish is not None:
        print("\n".join(metrics(conversation.finish)), file=sys.stderr)


def _writer(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Return a function that prints text, wrapped to the terminal unless the user disabled it."""
    # One column is left free: after a full line, the terminal would break the line a second time.
    width = terminal.width() - 1
    wrap = terminal.interactive(sys.stdout) and not arguments.nowordwrap and width >= NARROWEST
    wrapper = Wrapper(width) if wrap else None

    def write(text: str) -> None:
        # The wrapper counts the cells of what stands on the screen, with the replacements for other characters.
        print(wrapper.feed(terminal.shown(text, sys.stdout)) if wrapper is not None else text, end="", flush=True)

    return write


def metrics(finish: usage_pb2.Finish) -> list[str]:
    """Return token counts and durations, one per line."""
    timings, usage = finish.timings, finish.usage
    lines = [
        ("total duration:", timings.total.ToNanoseconds(), 0),
        ("load duration:", timings.load.ToNanoseconds(), 0),
        ("prompt eval", timings.prefill.ToNanoseconds(), usage.prompt_tokens),
        ("eval", timings.decode.ToNanoseconds(), usage.output_tokens),
    ]
    out = []
    for title, spent, count in lines:
        if title.endswith(":"):
            out.append(f"{title:<21} {duration(spent)}")
            continue
        if count:
            out.append(f"{title + ' count:':<21} {count} token(s)")
        if spent:
            out.append(f"{title + ' duration:':<21} {duration(spent)}")
            out.append(f"{title + ' rate:':<21} {count / spent * SECOND:.2f} tokens/s")
    return out
