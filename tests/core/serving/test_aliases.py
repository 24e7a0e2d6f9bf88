"""Aliases of the configuration file, as requests use them."""

from dataclasses import replace

import pytest

from puna import errors
from puna.auth.caller import Caller, enter
from puna.auth.errors import ModelNotAllowedError
from puna.auth.keys import ApiKey
from puna.model_name import parse_reference
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.serving.aliases import resolved
from puna.settings import Settings

MODELS = ConfiguredModels(
    (
        ModelSettings(name="plain", aliases=("gpt-4o", "bare")),
        ModelSettings(name="missing", aliases=("lost",)),
    )
)


@pytest.fixture
def settings():
    return Settings(model_settings=MODELS)


async def test_an_alias_finds_the_model(serving):
    found = await serving.access.find("GPT-4o:latest")
    assert (found.requested_name, found.model.name.shortest) == ("GPT-4o:latest", "plain:latest")
    assert (await serving.catalogue.show("gpt-4o")).name.shortest == "plain:latest"


async def test_a_model_of_the_store_wins(serving):
    assert (await serving.access.find("bare")).model.name.shortest == "bare:latest"
    assert (await serving.catalogue.show("bare")).name.shortest == "bare:latest"


async def test_lists_have_real_names_alone(serving):
    names = {each.name.shortest for each in await serving.catalogue.list()}
    assert "plain:latest" in names
    assert "gpt-4o:latest" not in names


async def test_an_alias_of_a_missing_model_is_missing_under_its_own_name(serving):
    for call in (serving.access.find("lost"), serving.catalogue.show("lost")):
        with pytest.raises(errors.ModelNotFoundError, match="lost"):
            await call


async def test_the_place_that_a_client_wants_stays(stocked):
    reference, alias = await resolved(parse_reference("gpt-4o:local"), MODELS, stocked)
    assert (reference.name.shortest, reference.source.value, alias) == ("plain:latest", "local", "gpt-4o:latest")


async def test_permissions_are_those_of_the_model_and_errors_show_the_alias(serving):
    key = ApiKey(id="1", name="k", digest="", models=("plain",))
    enter(Caller(key=key))
    assert (await serving.access.find("gpt-4o")).model.name.shortest == "plain:latest"
    enter(Caller(key=replace(key, models=("gpt-4o",))))
    for call in (serving.access.find("gpt-4o"), serving.catalogue.show("gpt-4o")):
        with pytest.raises(ModelNotAllowedError, match="'gpt-4o:latest'"):
            await call


async def test_what_changes_the_store_takes_names_as_they_are(serving):
    with pytest.raises(errors.ModelNotFoundError):
        await serving.catalogue.delete("gpt-4o")
    with pytest.raises(errors.ModelNotFoundError):
        await serving.catalogue.copy("gpt-4o", "other")
