"""One bad model hides no other: lists go on, and show, copy, delete and doctor reach it."""

import contextlib
import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e.server import MODELS, PUNA, serving
from tests.hostile.bounds import unharmed
from tests.hostile.fuzz import fuzz

from puna.errors import PunaError
from puna.gguf import reader as gguf
from puna.gguf.reader import GGUFError
from puna.models.layout import config, manifest, parameters, preset_messages
from puna.models.store import ModelStore
from puna_client.v1 import models_pb2, models_pb2_grpc

GOOD = {"scripted:latest", "embedder:latest"}
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
SCRIPTED = (MODELS / "scripted.gguf").read_bytes()
ODD = (None, True, -1, 2**63, 2**70, -(2**70), 1e300, "", "\ud800", [[]], {"a": [1]})
"""Values for fields of every type."""


def head(*pairs, tensors=0, count=None, version=3):
    """Write a GGUF head of pairs (key, kind, bytes of the value)."""
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs) if count is None else count)
    for key, kind, value in pairs:
        data += struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
    return data


def text(value):
    return struct.pack("<Q", len(value)) + value


LLAMA = (b"general.architecture", 8, text(b"llama"))
LENGTH = b"llama.context_length"
FILES = {
    "empty": b"",
    "no-gguf": b"nonsense" * 1000,
    "only-magic": b"GGUF",
    "huge-counts": head(LLAMA, tensors=2**63, count=2**64 - 1),
    "many-tensors": head(LLAMA, tensors=2**40),
    "long-string": head(LLAMA, (b"general.name", 8, struct.pack("<Q", 2**63))),
    "long-key": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**64 - 1),
    "long-array": head(LLAMA, (b"a", 9, struct.pack("<IQ", 4, 2**62))),
    "nested-array": head(LLAMA, (b"a", 9, struct.pack("<IQ", 9, 1) * 1000)),
    "unknown-type": head(LLAMA, (b"a", 77, b"")),
    "type-of-array": head(LLAMA, (b"a", 9, struct.pack("<IQ", 99, 1))),
    "twice": head(LLAMA, LLAMA, (b"general.architecture", 4, struct.pack("<I", 7))),
    "no-text": head((b"general.architecture", 8, text(b"\xff\xfe\x00\xed\xa0\x80")), (b"\xff", 8, text(b"\xff"))),
    "largest": head(
        LLAMA, *((LENGTH, 10, struct.pack("<Q", 2**64 - 1)), (b"llama.embedding_length", 11, struct.pack("<q", -1)))
    ),
    "nan": head(
        LLAMA,
        (LENGTH, 12, struct.pack("<d", float("nan"))),
        (b"llama.rope.freq_base", 6, struct.pack("<f", float("inf"))),
    ),
    "zero-tensor": head(LLAMA, tensors=1) + text(b"t") + struct.pack("<IQQIQ", 2, 0, 2**64 - 1, 0, 2**63),
    "wide-tensor": head(LLAMA, tensors=1) + text(b"t") + struct.pack("<I4QIQ", 4, *[2**64 - 1] * 4, 0, 0),
    "alignment": head(LLAMA, (b"general.alignment", 10, struct.pack("<Q", 2**64 - 1))),
    "old": head(LLAMA, version=1),
    "version": head(LLAMA, version=2**32 - 1),
    "truncated": SCRIPTED[:5000],
}
CONFIGS = {
    "config-deep": DEEP,
    "config-list": b"[" * 100_000,
    "config-empty": b"",
    "config-null": b"null",
    "config-bytes": b"\xff\xfe{}\x00\x00",
    "config-digits": b'{"context_length":' + b"9" * 100_000 + b"}",
    "config-large": b'{"model_family":"' + b"x" * (8 << 20) + b'"}',
    **{
        f"config-{number}": json.dumps(dict.fromkeys(config.loads(b"{}").__dataclass_fields__, value)).encode()
        for number, value in enumerate(ODD)
    },
    "config-nan": b'{"context_length":NaN,"embedding_length":Infinity}',
}
LAYERS = ("template", "system", "params", "messages", "license", "adapter", "projector", "draft")
MANIFESTS = {
    "manifest-deep": DEEP,
    "manifest-empty": b"",
    "manifest-list": b"[]",
    "manifest-large": b'{"a":"' + b"x" * (20 << 20) + b'"}',
    "manifest-layers": b'{"layers":{"a":1}}',
    "manifest-null": b'{"config":null,"layers":[null]}',
    "manifest-bytes": b'{"config":"\xff\xff","layers":"\xff"}',
    "manifest-many": json.dumps({"layers": [{"digest": "x"}] * 20_000}).encode(),
}


class Store:
    """Writes into a store as a stranger's registry, or another account with access to the folder, could."""

    def __init__(self, root):
        self.root = root
        self.names = set()

    def blob(self, data):
        digest = hashlib.sha256(data).hexdigest()
        path = self.root / "blobs" / f"sha256-{digest}"
        if not path.exists():
            path.write_bytes(data)
        return f"sha256:{digest}"

    def path(self, name):
        self.names.add(name)
        path = self.root / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def raw(self, name, data):
        self.path(name).write_bytes(data)

    def model(self, name, file=SCRIPTED, settings=b'{"model_format":"gguf"}', layers=(), **odd):
        made = self.layer("config", settings) | {"mediaType": "application/vnd.docker.container.image.v1+json"}
        all_layers = [self.layer("model", file) | odd, *(self.layer(kind, data) for kind, data in layers)]
        self.raw(name, json.dumps({"schemaVersion": 2, "config": made, "layers": all_layers}).encode())

    def layer(self, kind, data):
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": self.blob(data), "size": len(data)}


def spoil(store):
    """Fill a store with bad models."""
    for name, data in FILES.items():
        store.model(f"file-{name}", file=data)
    for name, data in CONFIGS.items():
        store.model(name, settings=data)
    for kind in LAYERS:
        for number, data in enumerate(
            (b"", b"\xff\xfe\x00", DEEP, b"[1]", b'{"num_ctx":NaN}', b'[{"images":7,"tool_calls":3}]', b"{{")
        ):
            store.model(f"layer-{kind}-{number}", layers=[(kind, data)])
    odd = {
        "role": 1,
        "content": [],
        "images": [1],
        "tool_calls": [{"function": {"index": 2**40, "arguments": {"a": 1e300}}}],
    }
    store.model("layer-odd-messages", layers=[("messages", json.dumps([odd]).encode())])
    for number, value in enumerate(ODD):
        store.model(f"size-{number}", size=value)
        store.model(f"names-{number}", mediaType=value, **{"from": value})
        store.model(f"digest-{number}", digest=value)
        store.model(f"parameters-{number}", layers=[("params", json.dumps({"num_ctx": value, "stop": value}).encode())])
    for name, digest in (
        ("up", "sha256:../../../../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("gone", "sha256:" + "0" * 64),
    ):
        store.model(f"digest-{name}", digest=digest)
    for name, data in MANIFESTS.items():
        store.raw(name, data)
    for name, moment in (("past", -(2**36)), ("future", 2**33), ("zero", 0)):
        store.model(f"time-{name}")
        os.utime(store.path(f"time-{name}"), (moment, moment))
    store.path("link-dangling").symlink_to("/nowhere/at/all")
    store.path("link-loop").symlink_to("latest")
    store.path("link-device").symlink_to("/dev/zero")
    store.path("folder").mkdir()
    os.mkfifo(store.path("pipe"))
    strange = store.root / "manifests" / "registry.ollama.ai" / "library"
    for name in (b"\xff\xfe", b"a b", b"..x", "é".encode(), b"-x", b"x" * 200):
        folder = os.fsencode(strange) + b"/" + name
        Path(os.fsdecode(folder)).mkdir()
        Path(os.fsdecode(folder + b"/latest")).write_bytes(b"{}")
    endless = store.root / "blobs" / ("sha256-" + "d" * 64)
    endless.symlink_to("/dev/zero")
    (store.root / "blobs" / ("sha256-" + "e" * 64)).mkdir()
    for letter in "de":
        bad = {
            "config": {"digest": f"sha256:{letter * 64}", "size": 1},
            "layers": [{"digest": f"sha256:{letter * 64}"}],
        }
        store.raw(f"blob-{letter}", json.dumps(bad).encode())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a store of two good models and some two hundred bad ones."""
    root = tmp_path_factory.mktemp("home") / "models"
    with serving(root) as server:
        for name in ("scripted", "embedder"):
            server.upload(name, MODELS / f"{name}.gguf")
    store = Store(root)
    spoil(store)
    return store


@pytest.fixture(scope="module")
def server(home):
    with serving(home.root) as running:
        yield running


def names(server):
    return {each["name"] for each in server.json("/api/tags")["models"]}


def test_every_list_has_the_good_models(server, home):
    with unharmed(server), grpc.insecure_channel(server.grpc) as channel:
        listed = names(server)
        assert listed >= GOOD
        assert {each["id"] for each in server.json("/v1/models")["data"]} >= GOOD
        models = (
            models_pb2_grpc.ModelsServiceStub(channel).ListModels(models_pb2.ListModelsRequest(page_size=1000)).models
        )
        assert {each.name for each in models} == listed
        server.json(
            "/api/generate", {"model": "scripted", "prompt": "Hi", "options": {"num_predict": 1}, "stream": False}
        )
        assert [each["name"] for each in server.json("/api/ps")["models"]] == ["scripted:latest"]
        server.json("/api/generate", {"model": "scripted", "keep_alive": 0})
    # A fault of the model file alone does not take a model from the list.
    assert {f"file-{name}:latest" for name in FILES} <= listed
    assert {f"time-{name}:latest" for name in ("past", "future", "zero")} <= listed


def test_a_fault_is_logged_once(server):
    for _ in range(3):
        names(server)
    lines = Path(f"/proc/{server.process.pid}/fd/2").read_text().splitlines()
    about = [line for line in lines if "leaving config-deep" in line]
    assert len(about) == 1
    assert "nested deeper than" in about[0]
    assert max(map(len, lines)) < 2000


def test_show_copy_and_delete_reach_every_bad_model(server, home):
    with unharmed(server):
        for number, name in enumerate(sorted(home.names - {"folder", "pipe"})):
            status, _, answer = server.ask("/api/show", {"model": name, "verbose": True})
            assert status in (200, 400, 404, 500), (name, answer)
            assert b"internal error" not in answer, (name, answer)
            made = [name]
            if number % 8 == 0 or name.startswith("blob-"):
                status, _, answer = server.ask("/api/copy", {"source": name, "destination": f"{name}-copy"})
                assert b"internal error" not in answer, (name, answer)
                made += [f"{name}-copy"] if status == 200 else []
            for each in made:
                removed, _, answer = server.ask("/api/delete", {"model": each}, method="DELETE")
                assert removed == 200 or (removed == 404 and name.startswith("link-")), (each, answer)
    assert names(server) == GOOD | {"llamita:latest", "llamita-embed:latest"}


def test_doctor_names_a_bad_model_and_its_fault(tmp_path):
    root = tmp_path / "models"
    with serving(root) as server:
        server.upload("scripted", MODELS / "scripted.gguf")
    store = Store(root)
    store.model("deep", settings=DEEP)
    store.model("torn", file=FILES["long-string"])
    store.model("sized", size=2**70)
    store.raw("unread", DEEP)
    store.path("dangling").symlink_to("/nowhere/at/all")
    store.model("talk", layers=[("messages", b"[7]")])
    found = subprocess.run(
        [PUNA, "doctor"], env=os.environ | {"OLLAMA_MODELS": str(root), "OLLAMA_HOST": "127.0.0.1:1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    for name, fault in (
        ("deep", "nested deeper"), ("torn", "string length"), ("sized", "instead of"), ("unread", "nested deeper"),
        ("dangling", "leads nowhere"), ("talk", "array of objects"),
    ):  # fmt: skip
        assert fault in found.stdout, (fault, found.stdout, found.stderr)
        assert name in found.stdout
    assert found.returncode == 1


def test_a_new_model_takes_the_place_of_a_bad_one(tmp_path):
    root = tmp_path / "models"
    with serving(root) as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        store = Store(root)
        for name, data in MANIFESTS.items():
            store.raw(name, data)
            server.json("/api/create", {"model": name, "from": "scripted", "stream": False})
            assert f"{name}:latest" in names(server)
            store.raw(name, data)
            assert server.ask("/api/copy", {"source": "scripted", "destination": name})[0] == 200
        store.model("bad-config", settings=DEEP)
        status, _, answer = server.ask("/api/create", {"model": "child", "from": "bad-config", "stream": False})
        assert status in (400, 500)
        assert b"nested deeper" in answer


FIELDS = st.dictionaries(
    st.sampled_from(
        [*config.loads(b"{}").__dataclass_fields__, "digest", "size", "mediaType", "layers", "config", "from"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
)


@fuzz(60, seconds=2)
@given(FIELDS | st.binary(max_size=60) | st.lists(FIELDS, max_size=3))
def test_files_of_json_are_read_or_refused(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")
    for read in (config.loads, manifest.loads, preset_messages.loads, parameters.loads):
        with contextlib.suppress(ValueError):
            read(data)


@fuzz(100, seconds=2)
@given(
    st.lists(st.tuples(st.integers(0, 6000), st.binary(min_size=1, max_size=9)), min_size=1, max_size=6),
    st.integers(0, 6000),
)
def test_heads_are_read_or_refused(tmp_path_factory, changes, end):
    data = bytearray(SCRIPTED[: 20_000 + end])
    for at, new in changes:
        data[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(data)
    for read in (gguf.read, gguf.peek, lambda each: gguf.read(each, arrays=True)):
        with contextlib.suppress(GGUFError):
            read(path)


@fuzz(20, seconds=5)
@given(FIELDS, st.binary(max_size=200))
def test_any_model_is_listed_or_left_out(tmp_path_factory, fields, tail):
    root = tmp_path_factory.mktemp("fuzzed")
    (root / "blobs").mkdir()
    store = Store(root)
    store.model("good")
    store.model("odd", file=b"GGUF" + tail, settings=json.dumps(fields).encode("utf-8", "surrogatepass"))
    store.raw("raw", json.dumps(fields).encode("utf-8", "surrogatepass"))
    listed = {each.name.model for each in ModelStore(root).list()}
    assert "good" in listed
    for name in ("odd", "raw"):
        with contextlib.suppress(LookupError, PunaError, OSError):
            _ = ModelStore(root).get(next(each for each in ModelStore(root).names() if each.model == name)).details
    shutil.rmtree(root)
