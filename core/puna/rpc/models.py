"""ModelsService."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from puna.errors import InvalidDigestError
from puna.models.facts.details import ModelSummary
from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import bounds, convert, model_answers, upkeep
from puna.rpc.convert import create_request
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.json_fields import json_object
from puna.rpc.model_answers import job_event
from puna.rpc.observe import observed
from puna.rpc.pages import page
from puna.rpc.parts import parts
from puna.rpc.uploads import received
from puna.serving.core import Serving
from puna_client.v1 import models_pb2, models_pb2_grpc

T = TypeVar("T")


class ModelsServicer(models_pb2_grpc.ModelsServiceServicer):
    """Serves ModelsService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._catalogue = serving.catalogue

    @unary
    async def ListModels(
        self, request: models_pb2.ListModelsRequest, context: Context
    ) -> models_pb2.ListModelsResponse:
        """List the models of the store."""
        found, token = page(await self._catalogue.list(), lambda each: each.order, request, ["ListModels"])
        # An entry of the list costs about as much as five JSON values.
        return await offload_if_heavy(5 * len(found), _listed, found, token)

    @unary
    async def GetModel(self, request: models_pb2.GetModelRequest, context: Context) -> models_pb2.GetModelResponse:
        """Describe a model."""
        return await self._shown(request)

    @streaming
    async def StreamModel(self, request: models_pb2.GetModelRequest, context: Context) -> None:
        """Describe a model in parts."""
        for part in parts(await self._shown(request)):
            await context.write(models_pb2.StreamModelResponse(part=part))

    async def _shown(self, request: models_pb2.GetModelRequest) -> models_pb2.GetModelResponse:
        bounds.check_length("options", request.options_json, self._serving.settings.limits)
        options = json_object(request.options_json, "options_json")
        found = await self._catalogue.show(
            request.name, verbose=request.verbose, system=request.system, options=options
        )
        # A verbose description lists hundreds of tensors.
        return await offload_if_heavy(len(found.tensors), model_answers.shown, found)

    @unary
    async def ListLoadedModels(
        self, request: models_pb2.ListLoadedModelsRequest, context: Context
    ) -> models_pb2.ListLoadedModelsResponse:
        """List the loaded models."""
        # Each request moves the time at which its model expires, so pages cannot be in the order of these times.
        found, token = page(
            self._serving.loaded(), lambda each: (each.name, each.pid, each.backend), request, ["ListLoadedModels"]
        )
        return models_pb2.ListLoadedModelsResponse(
            models=map(model_answers.loaded, found),
            pending_requests=self._serving.waiting_for_load(),
            next_page_token=token,
        )

    @unary
    async def LoadModel(self, request: models_pb2.LoadModelRequest, context: Context) -> models_pb2.LoadModelResponse:
        """Load a model."""
        with observed(self._serving.activity, request.name, "LoadModel") as entry:
            loaded = await self._serving.load(request.name, convert.request_options(request.options), entry.on_progress)
        return models_pb2.LoadModelResponse(loaded=model_answers.loaded(loaded))

    @unary
    async def EstimateModel(
        self, request: models_pb2.EstimateModelRequest, context: Context
    ) -> models_pb2.EstimateModelResponse:
        """Estimate the memory that a model would take."""
        with observed(self._serving.activity, request.name, "EstimateModel"):
            options = convert.request_options(request.options)
            found = await self._serving.estimate(
                request.name, options, slots=request.slots, kv_cache_type=request.kv_cache_type
            )
        return model_answers.estimate(found)

    @unary
    async def UnloadModel(
        self, request: models_pb2.UnloadModelRequest, context: Context
    ) -> models_pb2.UnloadModelResponse:
        """Unload a model."""
        return models_pb2.UnloadModelResponse(was_loaded=await self._serving.unload(request.name))

    @unary
    async def PinModel(self, request: models_pb2.PinModelRequest, context: Context) -> models_pb2.PinModelResponse:
        """Pin a loaded model, or let it go again."""
        pinned = await self._serving.pin(request.name, request.pinned)
        return models_pb2.PinModelResponse(was_loaded=pinned is not None, pinned=bool(pinned))

    @streaming
    async def PullModel(self, request: models_pb2.PullModelRequest, context: Context) -> None:
        """Pull a model from a registry."""
        with observed(self._serving.activity, request.name, "PullModel"):
            steps = self._catalogue.pull(request.name, insecure=request.insecure)
            await _relay(steps, lambda event: models_pb2.PullModelResponse(**job_event(event)), context)

    @streaming
    async def PushModel(self, request: models_pb2.PushModelRequest, context: Context) -> None:
        """Push a model to a registry."""
        with observed(self._serving.activity, request.name, "PushModel"):
            steps = self._catalogue.push(request.name, insecure=request.insecure)
            await _relay(steps, lambda event: models_pb2.PushModelResponse(**job_event(event)), context)

    @streaming
    async def CreateModel(self, request: models_pb2.CreateModelRequest, context: Context) -> None:
        """Create a model."""
        with observed(self._serving.activity, request.name, "CreateModel"):
            bounds.check_create(request, self._serving.settings.limits)
            asked = await offload_if_heavy(weight_of_message(request), create_request, request)
            steps = self._catalogue.create(asked)
            await _relay(steps, lambda event: models_pb2.CreateModelResponse(**job_event(event)), context)

    @unary
    async def CopyModel(self, request: models_pb2.CopyModelRequest, context: Context) -> models_pb2.CopyModelResponse:
        """Copy a model to another name. The files are shared."""
        with observed(self._serving.activity, request.source, "CopyModel"):
            await self._catalogue.copy(request.source, request.destination)
        return models_pb2.CopyModelResponse()

    @unary
    async def DeleteModel(
        self, request: models_pb2.DeleteModelRequest, context: Context
    ) -> models_pb2.DeleteModelResponse:
        """Delete a model's name, and the files that no other name uses."""
        with observed(self._serving.activity, request.name, "DeleteModel"):
            await self._catalogue.delete(request.name)
        return models_pb2.DeleteModelResponse()

    @streaming
    async def ImportModels(self, request: models_pb2.ImportModelsRequest, context: Context) -> None:
        """Import GGUF files on the server's disk as models."""
        # Before anything else: whether a path exists is no business of other machines.
        upkeep.check_local()
        with observed(self._serving.activity, request.name, "ImportModels"):
            await _relay(self._serving.import_models(upkeep.import_request(request)), upkeep.news, context)

    @streaming
    async def CheckStore(self, request: models_pb2.CheckStoreRequest, context: Context) -> None:
        """Check the store, and repair it if asked."""
        with observed(self._serving.activity, "", "CheckStore"):
            found = self._serving.check_store(repair=request.repair, quick=request.quick)
            await _relay(found, upkeep.seen, context)

    @unary
    async def StatBlob(self, request: models_pb2.StatBlobRequest, context: Context) -> models_pb2.StatBlobResponse:
        """Return the size of a blob."""
        try:
            # Every access to the store may wait for a disk.
            size = await asyncio.to_thread(self._serving.blobs.size, request.digest)
        except InvalidDigestError as error:
            error.info["field"] = "digest"
            raise
        return models_pb2.StatBlobResponse(size_bytes=size)

    @unary
    async def UploadBlob(
        self, request: AsyncIterator[models_pb2.UploadBlobRequest], context: Context
    ) -> models_pb2.UploadBlobResponse:
        """Store a blob."""
        most = self._serving.settings.limits.max_upload_bytes
        with observed(self._serving.activity, "", "UploadBlob"):
            blob = await received(self._serving.blobs, request, most)
        return models_pb2.UploadBlobResponse(size_bytes=blob.size, created=blob.created)


async def _relay(events: AsyncGenerator[T], message: Callable[[T], object], context: Context) -> None:
    """Send a message for each event."""
    async with aclosing(events):
        async for event in events:
            await context.write(message(event))


def _listed(found: list[ModelSummary], token: str) -> models_pb2.ListModelsResponse:
    return models_pb2.ListModelsResponse(models=map(model_answers.summary, found), next_page_token=token)
