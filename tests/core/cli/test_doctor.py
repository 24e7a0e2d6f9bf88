import argparse
import json

import pytest
from tests.core.cli.serving import address, backend, batches, client, registry, serving, settings, shared, stocked

from puna.cli.doctor import doctor
from puna.cli.errors import CommandError
from puna.settings import Settings

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


def asking(**given):
    return argparse.Namespace(
        **{"offline": False, "json": False, "repair": False, "quick": False, "formats": False} | given
    )


async def test_a_store_without_faults(client, stocked, capsys):
    assert await doctor(client, asking(quick=True)) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(": all is well")


@pytest.mark.parametrize("as_json", [True, False])
async def test_a_damaged_file_is_a_fault(client, stocked, capsys, as_json):
    blob = max(stocked.blobs.folder.iterdir(), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert await doctor(client, asking(json=as_json)) == 1
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        assert json.loads(lines[-1])["report"]["fault_count"] == 1
    else:
        assert any(line.startswith("FAULT ") and blob.name in line for line in lines)
        assert "1 faults" in lines[-1]


async def test_without_a_server_the_store_is_looked_at(stocked, capsys):
    settings = Settings(grpc_host="127.0.0.1:1", models=stocked.root)
    assert await doctor(settings, asking(quick=True)) == 0
    out, err = capsys.readouterr()
    assert err.startswith(f"no server at 127.0.0.1:1: looking at {stocked.root}\n")
    assert "all is well" in out


async def test_a_store_that_does_not_exist(tmp_path):
    with pytest.raises(CommandError, match=r"no such directory$"):
        await doctor(Settings(models=tmp_path / "absent"), asking(offline=True))
