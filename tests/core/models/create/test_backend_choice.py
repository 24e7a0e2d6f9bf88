"""Models whose files only their backend can read, and models without any file."""

import json

import pytest

from puna.errors import CreateFailedError, InvalidCreateError, TransferError
from puna.messages import Message
from puna.model_name import ModelName
from puna.models.create.backend_choice import format_to_import
from puna.models.create.uploads import NotUploadedError
from puna.models.layout import manifest as manifests
from puna.models.layout import media_types
from puna.models.layout.manifest import Layer, Manifest
from puna.models.show import show
from puna.models.stored import UnreadableModelError

NAMES = ("sub/vocabulary.txt", "model.bin", "config.json")


@pytest.fixture
def files(workshop):
    return {name: workshop.upload(name.encode()) for name in NAMES}


@pytest.fixture
def get(workshop):
    return lambda name="m": workshop.store.get(ModelName.parse(name))


@pytest.fixture
def refused(workshop):
    def refuse(**what):
        with pytest.raises((InvalidCreateError, NotUploadedError)) as caught:
            workshop.create("refused", **what)
        assert "refused" not in [each.name.model for each in workshop.store.list()]
        return str(caught.value)

    return refuse


def test_files_are_kept_as_they_are_under_their_names(workshop, files, get):
    steps = workshop.create(backend="shelf", files=files, system="Be brief.", parameters={"temperature": 0.5})
    assert steps[-2:] == ["writing manifest", "success"]
    model = get()
    assert {name: path.read_bytes() for name, path in model.files.items()} == {name: name.encode() for name in NAMES}
    layers = json.loads(workshop.manifest())["layers"]
    assert [(each["name"], each["mediaType"]) for each in layers[:3]] == [
        (name, "application/vnd.puna.image.file") for name in sorted(NAMES)
    ]
    config = json.loads(workshop.config())
    assert (config["backend"], config["backend_format"], config["model_format"]) == ("shelf", "shelf", "")
    assert (model.system, model.parameters) == ("Be brief.", {"temperature": 0.5})
    assert (model.details.format, model.size) == ("shelf", sum(map(len, NAMES)) + sum(
        each["size"] for each in [*layers[3:], json.loads(workshop.manifest())["config"]]
    ))  # fmt: skip


def test_the_order_of_files_does_not_change_the_model(workshop, files):
    workshop.create("one", backend="shelf", files=files)
    workshop.create("two", backend="shelf", files=dict(reversed(files.items())))
    assert workshop.manifest("one") == workshop.manifest("two")


def test_a_model_of_an_upstream_has_no_files(workshop, get):
    workshop.create(backend="away", upstream="big/model:v1", backend_options={"level": 3})
    model = get()
    assert (model.files, model.model_path, model.config.upstream) == ({}, None, "big/model:v1")
    assert model.config.backend_options == {"level": 3}
    assert (model.details.format, model.capabilities) == ("", ("completion", "tools", "thinking"))


def test_a_format_may_be_named_without_a_backend(workshop, files, get, refused):
    workshop.create(format="crate", files=files)
    assert (get().config.backend, get().config.format, get().serving_backend) == ("", "crate", "several")
    assert refused(format="nosuch", files=files) == "nothing serves 'nosuch'"


def test_the_format_is_derived_where_only_one_fits(workshop, files, get, refused):
    gguf = {"a.gguf": workshop.gguf()}
    workshop.create("a", backend="both", files=files)
    workshop.create("b", backend="both", files=gguf)
    workshop.create("c", backend="several", files=gguf)
    assert [get(name).config.format for name in "abc"] == ["crate", "gguf", "gguf"]
    assert refused(backend="several", files=files) == (
        "backend 'several' serves the formats gguf, shelf, crate: name one of them"
    )
    text = "backend 'shelf' does not serve format 'gguf' (it serves shelf)"
    assert refused(backend="shelf", files=gguf) == text
    assert refused(backend="shelf", files=files, format="gguf") == text
    assert refused(base="b", backend="shelf") == text


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({"backend": "nosuch"}, "backend 'nosuch' is not installed"),
        ({"backend": "shelf", "format": "crate"}, "backend 'shelf' does not serve format 'crate' (it serves shelf)"),
        ({"backend": "shelf", "backend_options": {"lvl": 1}}, "there is no option 'lvl'"),
        ({"backend": "shelf", "backend_options": {"level": "x"}}, "option 'level' must be a whole number"),
        ({"backend_options": {"level": 1}}, "options of a backend can be set only together with a backend"),
        ({"upstream": "x"}, "an upstream can be set only together with a backend"),
        ({"backend": "shelf", "upstream": "x"}, "backend 'shelf' serves files and has no upstream"),
        ({"backend": "away"}, "backend 'away' takes no files"),
        ({"backend": "away", "upstream": "x"}, "a model of an upstream has no files"),
        ({"backend": "shelf", "quantize": "q8_0"}, "only a GGUF model can be quantized"),
        ({"backend": "shelf", "adapters": {"a": "sha256:" + "1" * 64}},
         "only a GGUF model can be given an adapter"),
        ({"backend": "shelf", "draft_files": {"a": "sha256:" + "1" * 64}},
         "only a GGUF model can be given a draft model"),
        ({"backend": "shelf", "info": {"capabilities": ["completion", "flying"]}},
         "backend 'shelf' has no capability 'flying' (it has completion)"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_by_name(files, refused, what, text):
    assert refused(files=files, **what) == text


def test_other_bad_requests(workshop, files, refused):
    assert refused(backend="shelf") == "a model of format 'shelf' needs files"
    assert refused(backend="away", upstream="a\nb") == "upstream must have at most 500 characters, all printable"
    assert "takes messages itself" in refused(backend="away", upstream="x", template="{{ .Prompt }}")
    assert "clashes" in refused(backend="shelf", files={"A": files["model.bin"], "a": files["model.bin"]})
    missing = {"x.bin": "sha256:" + "3" * 64}
    assert refused(backend="shelf", files=missing).startswith("the file 'x.bin' has not been uploaded")
    assert refused(base="gpt:cloud", backend="away") == "a model on a remote server has no backend"


def test_another_model_gives_its_backend_files_and_options(workshop, files, get, refused):
    workshop.create("base", backend="shelf", files=files, backend_options={"level": 3}, system="old",
                    info={"capabilities": ["completion"]})  # fmt: skip
    workshop.create("child", base="base", system="new", messages=(Message(role="user", content="hi"),))
    child, base = get("child"), get("base")
    assert child.files == base.files
    assert child.config == base.config
    assert (child.system, child.parent_model) == ("new", "base:latest")
    workshop.create("other", base="base", backend_options={"level": 4})
    assert get("other").config.backend_options == {"level": 4}
    assert len({each.load_key for each in (base, child, get("other"))}) == 2
    workshop.create("moved", base="base", backend="several")
    assert (get("moved").config.backend, get("moved").config.backend_options) == ("several", {})
    assert refused(base="base", upstream="x", backend="away") == (
        "the model to start from has files, so the new one cannot have an upstream"
    )
    assert refused(base="base", backend="away") == "backend 'away' does not serve format 'shelf' (it serves no files)"
    assert refused(base="base", format="crate") == "the model to start from has the format 'shelf', not 'crate'"
    assert refused(base="base", quantize="q8_0") == "only a GGUF model can be quantized"


def test_another_model_gives_its_upstream(workshop, get, refused):
    workshop.create("base", backend="away", upstream="big", backend_options={"level": 1})
    workshop.create("same", base="base")
    workshop.create("small", base="base", upstream="small")
    assert [get(name).config.upstream for name in ("same", "small")] == ["big", "small"]
    text = "backend 'shelf' needs files, and the model to start from has none"
    assert refused(base="base", backend="shelf") == text


def test_a_gguf_model_keeps_its_backends_options(workshop, get):
    workshop.create_plain("base", backend="ctransformers", backend_options={"level": 2})
    workshop.create("child", base="base", system="x")
    assert (get("child").config.backend_options, get("child").config.model_format) == ({"level": 2}, "gguf")
    assert get("child").load_key == get("base").load_key == str(get("base").model_path)
    assert "BACKEND ctransformers\nBACKEND_OPTION level 2\nTEMPLATE" in show(get("child")).modelfile


def test_models_of_one_base_are_loaded_once_for_each_set_of_adapters(workshop, get):
    workshop.create_plain("base")
    adapters = [workshop.gguf(("general.type", "str", "adapter"), ("general.name", "str", name)) for name in "ab"]
    for name, adapter in zip("abc", (*adapters, adapters[0]), strict=True):
        workshop.create(name, base="base", adapters={"x.gguf": adapter}, system=name)
    keys = {name: get(name).load_key for name in ("base", "a", "b", "c")}
    assert keys["a"] == keys["c"]
    assert len(set(keys.values())) == 3


def test_show_tells_what_makes_the_model_again(workshop, files, get):
    workshop.create(backend="shelf", files=files, backend_options={"level": 3}, system="Hi.",
                    info={"capabilities": ["completion"], "parameter_size": "7B"})  # fmt: skip
    found = show(get())
    assert found.modelfile.splitlines()[1:] == [
        "FROM m:latest", "BACKEND shelf", "BACKEND_FORMAT shelf", "BACKEND_OPTION level 3", "CAPABILITY completion",
        "SYSTEM Hi.",
    ]  # fmt: skip
    assert (found.template, found.model_info_json, found.details.parameter_size) == ("{{ .Prompt }}", "{}", "7B")
    assert [each.name for each in found.files] == sorted(NAMES)
    assert (found.backend, found.serving_backend, found.backend_format) == ("shelf", "shelf", "shelf")
    workshop.create("up", backend="away", upstream="big")
    assert show(get("up"), verbose=True).modelfile.splitlines()[1:] == ["UPSTREAM big", "BACKEND away"]
    assert (show(get("up")).template, show(get("up")).upstream) == ("", "big")


def test_a_model_outlives_its_backend(workshop, files, get):
    workshop.create(backend="shelf", files=files)
    del workshop.backends.installed["shelf"]
    (listed,) = workshop.store.list()
    assert (listed.backend, listed.serving_backend, listed.capabilities) == ("shelf", "", ("completion",))
    assert show(get()).serving_backend == ""
    workshop.backends.installed["shelf"] = workshop.backends.installed["away"]
    assert workshop.store.list()[0].capabilities == ("completion", "tools", "thinking")


@pytest.mark.parametrize("names", [("../evil", "x"), ("/etc/x", "y"), ("a", "A"), ("a", "a"), ("", "b")])
def test_names_that_a_registry_sent_are_checked(workshop, get, names):
    """A pulled manifest may say anything."""
    digest = workshop.upload(b"weights")
    config = workshop.store.blobs.add(b'{"backend":"shelf","backend_format":"shelf"}')
    layers = tuple(Layer(media_type=media_types.FILE, digest=digest, size=7, name=name) for name in names)
    top = Layer(media_type=media_types.CONFIG, digest=config.digest, size=config.size)
    workshop.store.manifests.replace(ModelName.parse("m"), manifests.dumps(Manifest(top, layers)))
    for use in (lambda: get().files, lambda: show(get()), lambda: workshop.create("child", base="m")):
        with pytest.raises((UnreadableModelError, InvalidCreateError), match="the file name"):
            use()
    assert [each.name.model for each in workshop.store.list()] == ["m"]  # it can be seen, and removed
    workshop.store.delete(ModelName.parse("m"))


def test_a_missing_base_is_still_an_error_of_the_pull(workshop):
    with pytest.raises(TransferError):
        workshop.create(base="nosuch", backend="shelf")


def test_files_without_a_backend_are_still_gguf(workshop, files):
    with pytest.raises((InvalidCreateError, CreateFailedError), match="unknown type"):
        workshop.create(files=files)


@pytest.mark.parametrize(
    ("backend", "format_", "found"),
    [
        ("", "", "gguf"),
        ("ctransformers", "", "gguf"),
        ("several", "", "gguf"),
        ("several", "crate", "crate"),
        ("shelf", "", "shelf"),
        ("", "crate", "crate"),
    ],
)
def test_the_format_of_an_import(workshop, backend, format_, found):
    assert format_to_import(backend, format_, workshop.backends) == found


@pytest.mark.parametrize(
    ("backend", "format_", "text"),
    [
        ("nosuch", "", "is not installed"),
        ("shelf", "crate", "does not serve format 'crate'"),
        ("", "nosuch", "nothing serves"),
        ("away", "", "takes no files"),
    ],
)
def test_an_import_for_a_backend_that_cannot_serve_it(workshop, backend, format_, text):
    with pytest.raises(InvalidCreateError, match=text):
        format_to_import(backend, format_, workshop.backends)
