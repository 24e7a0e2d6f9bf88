"""buf on the .proto files: names follow its standard, and nothing breaks what was released."""

import re
import shutil
import subprocess

import pytest
from tests.clients.projects import PROTO, copy, run

BROKEN = 100
"""The exit status of buf when it found something."""
CHANGES = {
    "a field is removed": ("chat", r"  // [^\n]*\n  string model = 1;\n", ""),
    "a field has another type": ("chat", "bool render_only", "int32 render_only"),
    "a field has another name": ("chat", "bool render_only", "bool only_render"),
    "a field has another number": ("chat", r"(ToolChoice tool_choice) = \d+", r"\1 = 99"),
    "a field is no longer optional": ("options", "optional int32 top_k", "int32 top_k"),
    "a value is removed": ("models", r"  // [^\n]*\n  JOB_PHASE_DONE = \d+;\n", ""),
    "a method is renamed": ("models", "rpc StatBlob", "rpc BlobStat"),
    "a method streams": ("models", r"returns \(CopyModelResponse\)", "returns (stream CopyModelResponse)"),
    "a method is no longer repeatable": ("models", "= NO_SIDE_EFFECTS;", "= IDEMPOTENT;"),
    "a package of generated code is renamed": ("chat", "dev.puna.v1", "dev.puna.v2"),
}


@pytest.fixture(scope="module")
def buf(clients_python):
    """Runs buf in a folder; returns its exit status and what it printed."""
    home, node = copy("buf", "node_modules"), clients_python.parent
    run("npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", path=node, cwd=home)

    def buf(folder, *words):
        command = [node / "node", home / "node_modules/@bufbuild/buf/bin/buf", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr

    return buf


@pytest.fixture
def changed(tmp_path):
    """Returns a copy of proto/ in which a file of puna.v1 is changed."""
    folder = tmp_path / "proto"
    shutil.copytree(PROTO, folder, ignore=shutil.ignore_patterns("python"))

    def changed(name, pattern, replacement):
        path = folder / f"puna/v1/{name}.proto"
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count, f"{name}.proto has no {pattern!r}"
        path.write_text(text)
        return folder

    return changed


def test_names_follow_the_standard(buf):
    assert buf(PROTO, "lint") == (0, "")


def test_the_files_are_formatted(buf):
    assert buf(PROTO, "format", "--diff", "--exit-code") == (0, "")


def test_nothing_breaks_what_was_released(buf):
    assert buf(PROTO, "breaking", "--against", "baseline.binpb") == (0, "")


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_breaks_clients_is_found(buf, changed, change):
    status, printed = buf(changed(*change), "breaking", "--against", "baseline.binpb")
    assert (status, f"puna/v1/{change[0]}.proto" in printed) == (BROKEN, True), printed


def test_what_is_added_breaks_nothing(buf, changed):
    added = "message ChatRequest {\n  // New.\n  optional string added = 1000;"
    folder = changed("chat", r"message ChatRequest \{", added)
    assert buf(folder, "breaking", "--against", "baseline.binpb") == (0, "")


def test_a_name_against_the_standard_is_found(buf, changed):
    status, printed = buf(changed("models", "JOB_PHASE_DONE", "DONE"), "lint")
    assert (status, "ENUM_VALUE_PREFIX" in printed or "JOB_PHASE_" in printed) == (BROKEN, True), printed
