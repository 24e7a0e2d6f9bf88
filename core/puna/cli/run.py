"""The command `run`: one answer, or an interactive prompt."""

import argparse
import json
import sys
from contextlib import nullcontext

import grpc.aio

from puna.cli.client import connected, not_found
from puna.cli.conversation import LEVELS, Conversation
from puna.cli.errors import CommandError
from puna.cli.progress import follow
from puna.cli.talk import answer, take_media
from puna.cli.texts import readable
from puna.cli.typed_ahead import enter_is_enter
from puna.go.duration import parse_duration
from puna.settings import Settings
from puna_client.v1 import embed_pb2, embed_pb2_grpc, models_pb2, models_pb2_grpc


async def run(settings: Settings, arguments: argparse.Namespace) -> None:
    """Answer the prompt of the arguments or of standard input, or open an interactive prompt on a terminal.

    Without a terminal and without a prompt, the model is loaded and the command ends.
    """
    prompt = " ".join(arguments.prompt)
    if not sys.stdin.isatty():
        # Bytes, since the locale's encoding need not be UTF-8.
        given = sys.stdin.buffer.read().decode(errors="replace")
        prompt = " ".join(each for each in (given.rstrip("\n"), prompt) if each)
    prompt = readable(prompt)
    conversation = begin(arguments)
    interactive = not prompt and sys.stdin.isatty() and sys.stdout.isatty()
    # Before the connection, which may take seconds in which the user types.
    with enter_is_enter() if interactive else nullcontext():
        async with connected(settings) as channel:
            model = await shown_or_pulled(channel, arguments)
            capabilities = model.model.capabilities
            if "embedding" in capabilities and "completion" not in capabilities:
                await _embed(channel, arguments, prompt)
            elif interactive:
                # prompt_toolkit takes long to import, and one answer does not need it.
                from puna.cli.repl import converse

                await converse(channel, settings, conversation, model, arguments)
            elif prompt:
                text, media = take_media(prompt)
                await answer(channel, conversation, text, media, arguments)
                print()
            else:
                await conversation.load(channel)


def begin(arguments: argparse.Namespace) -> Conversation:
    """Return the conversation for the options. Raises CommandError."""
    if arguments.think not in LEVELS:
        raise CommandError(
            f'invalid value for --think: "{arguments.think}" (must be true, false, high, medium, low, or max)'
        )
    keep_alive = None
    if arguments.keepalive:
        try:
            keep_alive = parse_duration(arguments.keepalive)
        except ValueError as error:
            raise CommandError(str(error)) from None
    return Conversation(model=arguments.model, format=arguments.format, think=arguments.think, keep_alive_ns=keep_alive)


async def shown_or_pulled(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> models_pb2.GetModelResponse:
    """Return the model's description. A model that the store lacks is pulled first."""
    stub = models_pb2_grpc.ModelsServiceStub(channel)
    request = models_pb2.GetModelRequest(name=arguments.model)
    try:
        return await stub.GetModel(request)
    except grpc.aio.AioRpcError as error:
        if not not_found(error):
            raise
    await follow(
        stub.PullModel(models_pb2.PullModelRequest(name=arguments.model, insecure=arguments.insecure)), as_json=False
    )
    return await stub.GetModel(request)


async def _embed(channel: grpc.aio.Channel, arguments: argparse.Namespace, text: str) -> None:
    if not text:
        raise CommandError(f'embedding models require input text. Usage: puna run {arguments.model} "your text here"')
    request = embed_pb2.EmbedRequest(
        model=arguments.model, inputs=[text], truncate=arguments.truncate, dimensions=arguments.dimensions
    )
    vectors = (await embed_pb2_grpc.EmbedServiceStub(channel).Embed(request)).vectors
    # Nine digits identify a 32-bit float; its 64-bit form would show digits that mean nothing.
    print(json.dumps([float(f"{value:.9g}") for value in vectors[0].values]))
