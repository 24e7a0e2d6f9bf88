"""Stores in empty folders, and GGUF files with whatever metadata a test needs."""

import hashlib
import struct
from pathlib import Path

import pytest

from puna.errors import BackendNotFoundError, InvalidRequestError
from puna.models.backends import BackendFacts, NoBackends
from puna.models.create import rewrite
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.progress import JobPhase
from puna.models.store import ModelStore

QUANTIZER = rewrite.with_program("puna_llama_cpp.quantize")
TYPES = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10}
TYPES |= {"i64": 11, "f64": 12}
FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind, value):
    if kind == TYPES["str"]:
        return _string(value)
    if kind == TYPES["arr"]:
        element, values = value
        body = b"".join(_value(TYPES[element], each) for each in values)
        return struct.pack("<IQ", TYPES[element], len(values)) + body
    return struct.pack("<" + FORMS[kind], value)


def write_gguf(*pairs, tensors=(("v.x", (4,), 0, bytes(16)),), version=3):
    """Return a file: pairs are (key, type, value), tensors (name, shape, type number, bytes).

    Its tensor is called v.x by default, which marks files that are stored as they are.
    """
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += _string(key) + struct.pack("<I", TYPES[kind]) + _value(TYPES[kind], value)
    data = b""
    for name, shape, kind, content in tensors:
        out += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content + bytes(-len(content) % 32)
    return out + bytes(-len(out) % 32) + data


def check_options(options):
    """Options of every backend here: `level`, a number."""
    for key, value in options.items():
        if key != "level":
            raise InvalidRequestError(f"there is no option {key!r}")
        if not isinstance(value, int):
            raise InvalidRequestError("option 'level' must be a whole number")
    return dict(options)


BACKENDS = (
    BackendFacts(name="ctransformers", formats=("gguf",), check_options=check_options),
    BackendFacts(name="shelf", formats=("shelf",), check_options=check_options),
    BackendFacts(name="several", formats=("gguf", "shelf", "crate"), check_options=check_options),
    BackendFacts(name="both", formats=("gguf", "crate"), check_options=check_options),
    BackendFacts(
        name="away",
        capabilities=("completion", "tools", "thinking"),
        is_chat_level=True,
        check_options=check_options,
    ),
)


class Backends(NoBackends):
    """Backends that a test installs and removes."""

    def __init__(self):
        self.installed = {each.name: each for each in BACKENDS}

    def facts(self, name):
        if name not in self.installed:
            raise BackendNotFoundError(f"backend {name!r} is not installed")
        return self.installed[name]

    def serving(self, format, wanted):  # noqa: A002
        names = [wanted] if wanted else [each.name for each in self.installed.values() if format in each.formats]
        if not names:
            raise BackendNotFoundError(f"nothing serves {format!r}")
        return self.facts(names[0]).name


class Workshop:
    """A store and short ways to fill it."""

    def __init__(self, root: Path):
        self.backends = Backends()
        self.store = ModelStore(root, backends=self.backends)

    def upload(self, data: bytes) -> str:
        return self.store.blobs.add(data).digest

    def gguf(self, *pairs, architecture="zed", **how) -> str:
        return self.upload(write_gguf(("general.architecture", "str", architecture), *pairs, **how))

    def create(self, name="m", *, rewriter=None, **what) -> list[str]:
        """Create a model; return the lines that Ollama reports, too. It does not tell how far a conversion is."""
        steps = create(self.store, CreateRequest(name=name, **what), rewriter=rewriter or QUANTIZER)
        return [each.status for each in steps if each.phase is not JobPhase.CONVERTING or not each.total]

    def create_plain(self, name="m", *pairs, architecture="zed", **what) -> list[str]:
        return self.create(name, files={"a.gguf": self.gguf(*pairs, architecture=architecture)}, **what)

    def manifest(self, name="m", tag="latest") -> bytes:
        return (self.store.root / "manifests" / "registry.ollama.ai" / "library" / name / tag).read_bytes()

    def layers(self, name="m") -> list[tuple[str, str]]:
        from puna.models.layout import manifest

        found = manifest.loads(self.manifest(name)).layers
        return [(layer.media_type.rpartition(".")[2], layer.source) for layer in found]

    def text(self, name: str, kind: str) -> str:
        from puna.models.layout import manifest, media_types

        layer = manifest.loads(self.manifest(name)).last(media_types.PREFIX + kind)
        assert layer is not None
        return self.store.blobs.path(layer.digest).read_text()

    def config(self, name="m") -> str:
        from puna.models.layout import manifest

        return self.store.blobs.path(manifest.loads(self.manifest(name)).config.digest).read_text()


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path / "store")


@pytest.fixture
def store(workshop):
    return workshop.store


@pytest.fixture
def make_gguf():
    return write_gguf


@pytest.fixture
def sha256():
    return lambda data: hashlib.sha256(data).hexdigest()


@pytest.fixture
def scripted_models():
    return Path(__file__).parents[2] / "models"
