"""FilesService."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, closing

from google.protobuf.timestamp_pb2 import Timestamp

from puna.batch.core import Batches
from puna.batch.files import CHUNK, StoredFile
from puna.blocking import in_thread
from puna.errors import InvalidRequestError
from puna.rpc import batch_items
from puna.rpc.error_boundary import Context, streaming, unary
from puna.rpc.pages import page
from puna_client.v1 import files_pb2, files_pb2_grpc


class FilesServicer(files_pb2_grpc.FilesServiceServicer):
    """Serves FilesService."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._files = batches.files

    @unary
    async def CreateFile(
        self, request: AsyncIterator[files_pb2.CreateFileRequest], context: Context
    ) -> files_pb2.CreateFileResponse:
        """Store a file. Each chunk is written before the next is read, so that memory stays bounded."""
        first = await anext(request, None)
        if first is None or not first.HasField("config"):
            raise InvalidRequestError("the first message must be the description of the file", field="config")
        with ExitStack() as stack:
            owner, config = await self._owner(), first.config
            # The stack is entered in the thread, so that a writer is closed even if this call is cancelled meanwhile.
            writer = await in_thread(
                lambda: stack.enter_context(closing(self._files.writer(owner, config.name, config.purpose)))
            )
            async for message in request:
                await in_thread(writer.write, message.chunk)
            # A stream that was cancelled may end like one that is complete. The cancellation arrives while the disk
            # works, and so before the file exists.
            await in_thread(writer.flush, config.size_bytes if config.HasField("size_bytes") else None)
            new = await in_thread(writer.finish)
        return files_pb2.CreateFileResponse(file=self._described(new))

    @unary
    async def GetFile(self, request: files_pb2.GetFileRequest, context: Context) -> files_pb2.GetFileResponse:
        """Describe a file."""
        return files_pb2.GetFileResponse(file=self._described(self._files.get(await self._owner(), request.id)))

    @unary
    async def ListFiles(self, request: files_pb2.ListFilesRequest, context: Context) -> files_pb2.ListFilesResponse:
        """List the files of the caller."""
        listed = batch_items.behind(self._files.listed(await self._owner()), request.after_id)
        found, token = page(listed, lambda each: (-each.create_ns, each.id), request, ["ListFiles", request.after_id])
        return files_pb2.ListFilesResponse(files=map(self._described, found), next_page_token=token)

    @unary
    async def DeleteFile(self, request: files_pb2.DeleteFileRequest, context: Context) -> files_pb2.DeleteFileResponse:
        """Remove a file."""
        await in_thread(self._files.delete, await self._owner(), request.id)
        return files_pb2.DeleteFileResponse()

    @streaming
    async def StreamFile(self, request: files_pb2.StreamFileRequest, context: Context) -> None:
        """Stream the bytes of a file."""
        owner = await self._owner()
        with ExitStack() as stack:
            file = await in_thread(lambda: stack.enter_context(self._files.open(owner, request.id)))
            while chunk := await in_thread(file.read, CHUNK):
                await context.write(files_pb2.StreamFileResponse(chunk=chunk))

    async def _owner(self) -> str:
        """Return the owner of the caller's files. OSError: there is no place for files."""
        await self._batches.check()
        return batch_items.owner()[0]

    def _described(self, file: StoredFile) -> files_pb2.File:
        create, delete = Timestamp(), Timestamp()
        create.FromNanoseconds(file.create_ns)
        delete.FromNanoseconds(int(self._files.kept_until(file) * 1e9))
        return files_pb2.File(
            id=file.id,
            name=file.name,
            purpose=file.purpose,
            size_bytes=file.size,
            create_time=create,
            delete_time=delete,
        )
