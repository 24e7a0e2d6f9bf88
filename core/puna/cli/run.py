"""`run`: talk to a model, once or in a prompt of its own."""

import argparse
import json
import re
import sys
from contextlib import aclosing
from pathlib import Path

import grpc.aio

from puna.cli.client import connected, not_found
from puna.cli.conversation import LEVELS, Conversation
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.cli.tables import SECOND, duration
from puna.duration import parse_duration
from puna.settings import Settings
from puna.v1 import embed_pb2, embed_pb2_grpc, models_pb2, models_pb2_grpc, usage_pb2

GREY, PLAIN = "\x1b[90m", "\x1b[0m"
MEDIA = re.compile(r"(?:[a-zA-Z]:)?(?:\.{0,2}/|~)?(?:\\ |[^\s'\"\\])+\.(?:jpe?g|png|webp|wav)\b", re.IGNORECASE)
LARGEST_MEDIA = 100 * 1024 * 1024


async def run(settings: Settings, told: argparse.Namespace) -> None:
    """Answer a prompt from the arguments or from standard input; without either, open a prompt."""
    prompt = " ".join(told.prompt)
    if not sys.stdin.isatty():
        prompt = " ".join(each for each in (sys.stdin.read().rstrip("\n"), prompt) if each)
    conversation = begin(told)
    async with connected(settings) as channel:
        model = await shown_or_pulled(channel, told)
        capabilities = model.model.capabilities
        if "embedding" in capabilities and "completion" not in capabilities:
            await _embed(channel, told.model, prompt)
        elif prompt or not (sys.stdin.isatty() and sys.stdout.isatty()):
            text, media = take_media(prompt)
            await answer(channel, conversation, text, media, told)
            print()
        else:
            from puna.cli.repl import converse

            await converse(channel, settings, conversation, model, told)


def begin(told: argparse.Namespace) -> Conversation:
    """Make the conversation that the flags describe. Raises CommandError."""
    if told.think not in LEVELS:
        raise CommandError(
            f'invalid value for --think: "{told.think}" (must be true, false, high, medium, low, or max)'
        )
    keep_alive = None
    if told.keepalive:
        try:
            keep_alive = parse_duration(told.keepalive)
        except ValueError as error:
            raise CommandError(str(error)) from None
    return Conversation(model=told.model, format=told.format, think=told.think, keep_alive_ns=keep_alive)


async def shown_or_pulled(channel: grpc.aio.Channel, told: argparse.Namespace) -> models_pb2.GetModelResponse:
    """Return what a model is; one that is not in the store is pulled first."""
    stub = models_pb2_grpc.ModelsServiceStub(channel)
    request = models_pb2.GetModelRequest(name=told.model)
    try:
        return await stub.GetModel(request)
    except grpc.aio.AioRpcError as error:
        if not not_found(error):
            raise
    await follow(stub.PullModel(models_pb2.PullModelRequest(name=told.model, insecure=told.insecure)), as_json=False)
    return await stub.GetModel(request)


def take_media(prompt: str) -> tuple[str, list[bytes]]:
    """Take the names of existing picture and sound files out of a prompt; return the rest and the files' bytes."""
    media: list[bytes] = []
    for match in MEDIA.finditer(prompt):
        path = Path(match[0].replace("\\ ", " ")).expanduser()
        if not path.is_file():
            continue
        if path.stat().st_size > LARGEST_MEDIA:
            raise CommandError(f"{path}: larger than 100 MB")
        kind = "audio" if path.suffix.lower() == ".wav" else "image"
        print(f"Added {kind} '{path}'", file=sys.stderr)
        media.append(path.read_bytes())
        prompt = prompt.replace(match[0], "")
    return (prompt.strip() if media else prompt), media


async def answer(
    channel: grpc.aio.Channel, conversation: Conversation, text: str, media: list[bytes], told: argparse.Namespace
) -> None:
    """Ask and print the answer as it comes."""
    color = sys.stdout.isatty()
    thinking = False
    async with aclosing(conversation.ask(channel, text, media)) as deltas:
        async for delta in deltas:
            if delta.thinking and not told.hidethinking:
                if not thinking:
                    print(f"{GREY if color else ''}Thinking...")
                    thinking = True
                print(delta.thinking, end="", flush=True)
            if delta.content:
                if thinking:
                    print(f"\n...done thinking.{PLAIN if color else ''}\n")
                    thinking = False
                print(delta.content, end="", flush=True)
    print()
    if told.verbose and conversation.finish is not None:
        print("\n".join(metrics(conversation.finish)), file=sys.stderr)


def metrics(finish: usage_pb2.Finish) -> list[str]:
    """Write counts and durations, one a line."""
    timings, usage = finish.timings, finish.usage
    lines = [
        ("total duration:", timings.total.ToNanoseconds(), 0),
        ("load duration:", timings.load.ToNanoseconds(), 0),
        ("prompt eval", timings.prompt_eval.ToNanoseconds(), usage.prompt_tokens),
        ("eval", timings.eval.ToNanoseconds(), usage.output_tokens),
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


async def _embed(channel: grpc.aio.Channel, model: str, text: str) -> None:
    if not text:
        raise CommandError(f'embedding models require input text. Usage: puna run {model} "your text here"')
    request = embed_pb2.EmbedRequest(model=model, inputs=[text], truncate=True)
    vectors = (await embed_pb2_grpc.EmbedServiceStub(channel).Embed(request)).vectors
    print(json.dumps([float(f"{value:.9g}") for value in vectors[0].values]))
