import asyncio

import grpc
import pytest
from tests.core.batch.conftest import until

from puna.rpc.server import serving as running
from puna_client.v1 import files_pb2, files_pb2_grpc


def parts(*chunks, name="a.jsonl"):
    yield files_pb2.CreateFileRequest(config=files_pb2.FileConfig(name=name, purpose="batch"))
    for chunk in chunks:
        yield files_pb2.CreateFileRequest(chunk=chunk)


async def create(stubs, *chunks, **fields):
    return (await stubs.files.CreateFile(parts(*chunks, **fields))).file


async def content(stubs, id_):
    call = stubs.files.StreamFile(files_pb2.StreamFileRequest(id=id_))
    return [each.chunk async for each in call]


async def code(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


async def test_a_file_comes_back_in_chunks(stubs):
    data = bytes(range(256)) * 3000
    new = await create(stubs, data[:1000], data[1000:])
    assert (new.name, new.purpose, new.size_bytes) == ("a.jsonl", "batch", len(data))
    assert new.delete_time.seconds > new.create_time.seconds
    chunks = await content(stubs, new.id)
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 1 << 18
    assert (await stubs.files.GetFile(files_pb2.GetFileRequest(id=new.id))).file == new


async def test_files_are_listed_and_deleted(stubs):
    ids = [(await create(stubs, b"x")).id for _ in range(3)][::-1]
    first = await stubs.files.ListFiles(files_pb2.ListFilesRequest(page_size=2))
    rest = await stubs.files.ListFiles(files_pb2.ListFilesRequest(page_token=first.next_page_token))
    assert [each.id for each in [*first.files, *rest.files]] == ids
    await stubs.files.DeleteFile(files_pb2.DeleteFileRequest(id=ids[0]))
    for call in (
        stubs.files.DeleteFile(files_pb2.DeleteFileRequest(id=ids[0])),
        stubs.files.GetFile(files_pb2.GetFileRequest(id=ids[0])),
        content(stubs, ids[0]),
        content(stubs, "../../lock"),
    ):
        assert await code(call) is grpc.StatusCode.NOT_FOUND


async def test_a_file_needs_its_description(stubs):
    call = stubs.files.CreateFile(iter([files_pb2.CreateFileRequest(chunk=b"x")]))
    assert await code(call) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_file_has_the_size_that_its_client_says(stubs, batches):
    def sent(size):
        yield files_pb2.CreateFileRequest(config=files_pb2.FileConfig(size_bytes=size))
        yield files_pb2.CreateFileRequest(chunk=b"four")

    assert await code(stubs.files.CreateFile(sent(5))) is grpc.StatusCode.INVALID_ARGUMENT
    assert batches.files.listed("") == []
    assert (await stubs.files.CreateFile(sent(4))).file.size_bytes == 4


async def test_an_upload_that_is_cancelled_leaves_nothing(stubs, batches, tmp_path):
    async def sent():
        for part in parts(b"x"):
            yield part
        await asyncio.sleep(60)

    call = stubs.files.CreateFile(sent())
    async with asyncio.timeout(10):
        await until(lambda: list((tmp_path / "batches").glob("files/.*")))
        call.cancel()
        await until(lambda: not list((tmp_path / "batches").glob("files/.*")))
    assert batches.files.listed("") == []


async def test_a_server_without_a_folder_says_so(serving):
    async with running(serving, "127.0.0.1:0") as address, grpc.aio.insecure_channel(address) as channel:
        stub = files_pb2_grpc.FilesServiceStub(channel)
        for call in (stub.CreateFile(parts(b"x")), stub.ListFiles(files_pb2.ListFilesRequest())):
            assert await code(call) is grpc.StatusCode.FAILED_PRECONDITION
