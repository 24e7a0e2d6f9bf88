"""`run`: talk to a model, once or in a prompt of its own."""

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
from puna.v1 import embed_pb2, embed_pb2_grpc, models_pb2, models_pb2_grpc


async def run(settings: Settings, told: argparse.Namespace) -> None:
    """Answer a prompt from the arguments or from standard input; in a terminal and without either, open a prompt.

    Without a terminal and without a prompt the model is loaded, and nothing is asked.
    """
    prompt = " ".join(told.prompt)
    if not sys.stdin.isatty():
        given = sys.stdin.buffer.read().decode(errors="replace")
        prompt = " ".join(each for each in (given.rstrip("\n"), prompt) if each)
    prompt = readable(prompt)
    conversation = begin(told)
    interactive = not prompt and sys.stdin.isatty() and sys.stdout.isatty()
    with enter_is_enter() if interactive else nullcontext():
        async with connected(settings) as channel:
            model = await shown_or_pulled(channel, told)
            capabilities = model.model.capabilities
            if "embedding" in capabilities and "completion" not in capabilities:
                await _embed(channel, told, prompt)
            elif interactive:
                from puna.cli.repl import converse

                await converse(channel, settings, conversation, model, told)
            elif prompt:
                text, media = take_media(prompt)
                await answer(channel, conversation, text, media, told)
                print()
            else:
                await conversation.load(channel)


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


async def _embed(channel: grpc.aio.Channel, told: argparse.Namespace, text: str) -> None:
    if not text:
        raise CommandError(f'embedding models require input text. Usage: puna run {told.model} "your text here"')
    request = embed_pb2.EmbedRequest(
        model=told.model, inputs=[text], truncate=told.truncate, dimensions=told.dimensions
    )
    vectors = (await embed_pb2_grpc.EmbedServiceStub(channel).Embed(request)).vectors
    print(json.dumps([float(f"{value:.9g}") for value in vectors[0].values]))
