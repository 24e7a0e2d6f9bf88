import pytest

from puna.limits import Limits
from puna.model_settings import ConfiguredModels, ModelSettings, check_bounds
from puna.replica_count import ReplicaCount
from puna.settings import from_environment


@pytest.mark.parametrize(("value", "count"), [(2, (2, 2)), ("2", (2, 2)), ("1-4", (1, 4)), ("3-3", (3, 3))])
def test_numbers_and_ranges(value, count):
    assert ReplicaCount.parse(value) == count


@pytest.mark.parametrize("value", [0, "0-2", "4-1", "-1", "1-", "a", "", True, 1.5, None, "1-4-6"])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match="a number of replicas"):
        ReplicaCount.parse(value)


def test_the_environment_and_the_file_set_it(tmp_path):
    file = tmp_path / "puna.toml"
    file.write_text('replicas = "1-3"\nrouting = "session"\n[model.m]\nreplicas = 2\nrouting = "random"\n')
    found = from_environment({}, file)
    assert (found.replicas, found.routing) == ((1, 3), "session")
    own = found.model_settings.of("m")
    assert (own.replicas, own.routing) == ((2, 2), "random")
    assert from_environment({"PUNA_REPLICAS": "4"}, file).replicas == (4, 4)


@pytest.mark.parametrize("text", ["many", "65"])
def test_a_wrong_variable_ends_the_start(text, tmp_path):
    (tmp_path / "puna.toml").touch()
    with pytest.raises(ValueError, match="PUNA_REPLICAS is"):
        from_environment({"PUNA_REPLICAS": text}, tmp_path / "puna.toml")


def test_a_model_has_no_more_than_the_limit():
    models = ConfiguredModels((ModelSettings(name="m", replicas=ReplicaCount(1, 5)),))
    check_bounds(models, Limits(max_replicas=5))
    with pytest.raises(ValueError, match=r"model.m.replicas: it must be at most 4 \(PUNA_MAX_REPLICAS\)"):
        check_bounds(models, Limits(max_replicas=4))
