"""What the distributions hold. A missing file shows only where there is no checkout."""

import re
import tarfile
import zipfile

import pytest
from tests.packaging.conftest import ROOT

DEMO = sorted(
    str(path.relative_to(ROOT / "core/puna/demo"))
    for path in (ROOT / "core/puna/demo").rglob("*.*")
    if path.suffix in (".gguf", ".txt", ".json", ".tmpl")
)
PACKAGES = (
    "core/puna",
    "rest_bridge/puna_rest",
    "plugins/puna_llama_cpp",
    "plugins/puna_ggml_kernels",
    "plugins/puna_ctransformers",
    "plugins/puna_ctranslate2",
    "plugins/puna_openai",
)


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built[1]) as archive:
        yield archive


@pytest.fixture(scope="module")
def client(client_wheel):
    with zipfile.ZipFile(client_wheel) as archive:
        yield archive


@pytest.fixture(scope="module")
def source(built):
    with tarfile.open(built[0]) as archive:
        yield {name.partition("/")[2] for name in archive.getnames()}


def test_the_wheel_holds_the_demo_model_byte_for_byte(wheel):
    assert {"llamita.gguf", "template.tmpl"} <= set(DEMO)
    for name in DEMO:
        assert wheel.read(f"puna/demo/{name}") == (ROOT / "core/puna/demo" / name).read_bytes()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_each_package_whole_and_typed(wheel, package):
    folder = ROOT / package
    files = {str(path.relative_to(folder.parent)) for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")}
    assert files | {f"{folder.name}/py.typed"} <= set(wheel.namelist())


def test_the_wheel_holds_the_manifests_of_the_backends(wheel):
    manifests = {str(path.relative_to(ROOT / "plugins")) for path in (ROOT / "plugins").glob("puna_*/*backend.toml")}
    assert "puna_llama_cpp/backend.toml" in manifests
    assert manifests <= set(wheel.namelist())


def test_the_wheel_holds_the_license_and_nothing_but_packages(wheel):
    assert wheel.read("puna-0.1.0.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert top == {package.partition("/")[2] for package in PACKAGES} | {"puna-0.1.0.dist-info"}


def test_the_wheel_names_its_extras_and_pythons(wheel):
    lines = wheel.read("puna-0.1.0.dist-info/METADATA").decode().splitlines()
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == {"llama-cpp", "ctranslate2", "openai", "convert", "otel", "ray", "redaction"}
    assert "Requires-Python: <3.15,>=3.11" in lines
    assert "Classifier: Programming Language :: Python :: 3.14" in lines


def test_the_source_holds_what_it_takes_to_build_and_test(source):
    assert {"LICENSE", "README.md", "pyproject.toml", "tools/build_kernels.py", "tests/test_house.py"} <= source
    assert {f"core/puna/demo/{name}" for name in DEMO} <= source
    assert not [name for name in source if name.endswith((".so", ".pyc"))]


def test_the_wheel_of_the_client_holds_one_typed_package_and_the_license(client):
    folder = ROOT / "proto/python/puna_client"
    files = {str(path.relative_to(folder.parent)) for path in folder.rglob("*.py*") if path.suffix in (".py", ".pyi")}
    assert {name for name in client.namelist() if ".dist-info/" not in name} == files | {
        "puna_client/py.typed",
        "puna_client/service_config.json",
    }
    assert client.read("puna_client/service_config.json") == (ROOT / "proto/service_config.json").read_bytes()
    assert client.read("puna_client-0.1.0.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_client_needs_grpcio_and_protobuf_alone_and_the_server_its_very_version(client, wheel):
    def needs(archive, name):
        lines = archive.read(f"{name}-0.1.0.dist-info/METADATA").decode().splitlines()
        return [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]

    assert {re.split("[<>=]", each)[0] for each in needs(client, "puna_client")} == {"grpcio", "protobuf"}
    assert "puna-client==0.1.0" in needs(wheel, "puna")
    assert set(needs(client, "puna_client")) <= set(needs(wheel, "puna"))
