import pytest
from tests.core.cli.serving import address, backend, batches, client, registry, serving, settings, shared, stocked

from puna.cli.changing import copy, remove, stop
from puna.cli.errors import CommandError

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


def names(store):
    return {summary.name.shortest for summary in store.list()}


async def test_copy(client, stocked, capsys):
    await copy(client, "plain", "other")
    assert "other:latest" in names(stocked)
    assert capsys.readouterr().out == "copied 'plain' to 'other'\n"


async def test_remove_goes_on_until_a_model_is_missing(client, stocked, capsys):
    with pytest.raises(CommandError, match="model 'absent' not found"):
        await remove(client, ["plain", "absent", "talker"])
    assert capsys.readouterr().out == "deleted 'plain'\n"
    assert "plain:latest" not in names(stocked)
    assert "talker:latest" in names(stocked)


async def test_stop(client, capsys):
    await stop(client, "plain")
    assert capsys.readouterr().out == ""
    with pytest.raises(CommandError, match=r'^couldn\'t find model "absent" to stop$'):
        await stop(client, "absent")
