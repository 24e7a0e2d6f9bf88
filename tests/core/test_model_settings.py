"""The tables of models in the configuration file: what they say, and each mistake with its line."""

import math
import re
from pathlib import Path

import pytest

from puna.configuration import ConfigurationError, load
from puna.limits import Limits
from puna.model_settings import SETTINGS, ConfiguredModels, ModelSettings, check_bounds, folded
from puna.options import KINDS

GOOD = """\
context_length = 8192

[model."qwen3:8b"]
aliases = ["gpt-4o", "team/fast:v1"]
backend = "llama_cpp"
keep_alive = "1h"
load_timeout = 0
num_parallel = 4
max_queue = 0
max_context_tokens = 16384
max_output_tokens = 512

[model."qwen3:8b".options]
temperature = 0.2
num_ctx = 16384
stop = ["END"]

[model.small]
keep_alive = -1
preload = true
pin = true

[model_sets]
large = ["gpt-4o", "LLAMA3:70b"]
"two words" = ["llama3:70b", "away/big/model/x"]

[model."away/big/model/x"]
options = { top_k = 1 }
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return load(path).models

    return read


def test_every_setting_of_a_model(read):
    found = read(GOOD).of("qwen3:8b")
    assert found == ModelSettings(
        name="qwen3:8b",
        aliases=("gpt-4o", "team/fast:v1"),
        options={"temperature": 0.2, "num_ctx": 16384, "stop": ["END"]},
        backend="llama_cpp",
        keep_alive=3600.0,
        load_timeout=math.inf,
        num_parallel=4,
        max_queue=0,
        max_context_tokens=16384,
        max_output_tokens=512,
    )
    small = read(GOOD).of("small")
    assert (small.keep_alive, small.preload, small.pin) == (math.inf, True, True)
    assert read(GOOD).of("other") == ModelSettings()


def test_names_are_those_of_requests(read):
    models = read(GOOD)
    for name in ("small", "SMALL:latest", "library/small", "registry.ollama.ai/library/Small:Latest"):
        assert models.of(name).name == "small"
    assert models.of("small:v2").name == ""
    assert models.of("away/big/model/X:latest").options == {"top_k": 1}
    assert folded("hf.co/User/Repo:Q4") == folded("HF.co/user/repo:q4")


def test_an_alias_leads_to_its_model(read):
    models = read(GOOD)
    assert [models.target(each) for each in ("gpt-4o", "GPT-4o:latest", "team/fast:v1")] == ["qwen3:8b"] * 3
    assert [models.target(each) for each in ("gpt-4o:v2", "qwen3:8b", "team/fast", "")] == [""] * 4


def test_sets_of_models_that_exclude_each_other(read):
    models = read(GOOD)
    # A member may be named by an alias.
    assert models.sets["large"] == ("qwen3:8b", "LLAMA3:70b")
    for one, other, excluded in (
        ("qwen3:8b", "llama3:70b", True),
        ("llama3:70b", "away/big/model/x:latest", True),
        ("qwen3:8b", "away/big/model/x:latest", False),
        ("qwen3:8b", "small", False),
        ("unknown", "unknown", False),
    ):
        assert models.exclude([one], [other]) is models.exclude([other], [one]) is excluded
    assert models.sets_of("llama3:70b") == ["large", "two words"]
    assert models.sets_of("small") == []
    assert models.exclude(["small", "qwen3:8b"], ["other", "llama3:70b"])
    assert not ConfiguredModels().exclude(["a"], ["a"])


def test_a_model_is_pinned_under_any_of_its_names(read):
    models = read(GOOD)
    assert models.pins(["other", "small:latest"])
    assert not models.pins(["other", "qwen3:8b"])
    assert not ConfiguredModels().pins(["a"])


def test_the_example_of_the_documentation_has_every_setting(read):
    text = (Path(__file__).parents[2] / "core/README.md").read_text()
    example = next(each for each in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[model." in each)
    models = read(example)
    (table,) = models.tables
    unset = [name for name in SETTINGS if getattr(table, name) == getattr(ModelSettings(), name)]
    assert (unset, list(models.sets)) == ([], ["large"])


def test_a_file_without_models(read):
    assert read("") == ConfiguredModels()
    assert ConfiguredModels().of("any") == ModelSettings()
    assert ConfiguredModels().target("any") == ""


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("model = 5", 1, "model: it must hold a table for each model"),
        ("[model]\na = 5", 2, "model.a: it must be a table of the model's settings"),
        ('\n[model."a b"]\nkeep_alive = 1', 2, "model.a b: it is no valid name of a model"),
        ('[model."a:cloud"]', 1, "model.a:cloud: the name must not end in :local or :cloud"),
        ('[model.a]\n[model."A:latest"]', 2, "model.A:latest: it is the same model as 'a'"),
        ('[model."a.b:c"]\nkeepalive = 1', 2, "model.a.b:c.keepalive: there is no such setting of a model; perhaps k"),
        ("[model.a]\nzzz = 1", 2, "model.a.zzz: there is no such setting of a model; there are preload, pin, alia"),
        ('[model."a"]\nkeep_alive = "soon"', 2, 'model.a.keep_alive: it must be a duration, such as "5m"'),
        ("[model.a]\nkeep_alive = true", 2, "model.a.keep_alive: it must be a duration"),
        (f"[model.a]\nkeep_alive = {10**400}", 2, "model.a.keep_alive: it must be a duration"),
        ("[model.a]\nnum_parallel = 0", 2, "model.a.num_parallel: it must be a whole number from 1 to 2147483647"),
        ("[model.a]\nmax_queue = true", 2, "model.a.max_queue: it must be a whole number from 0"),
        ("[model.a]\nmax_context_tokens = 3.5", 2, "model.a.max_context_tokens: it must be a whole number from 4"),
        *(
            (
                f"[model.a]\ngpus = {value}",
                2,
                "model.a.gpus: it must be a number above 0 and up to 1, such as 0.25, or a ",
            )
            for value in ("0", "-1", "1.5", "nan", "inf", "1025", 10**400, "true", "'1'")
        ),
        ("[model.a]\nbackend = 5", 2, "model.a.backend: it must be a text"),
        ("[model.a]\naliases = 'b'", 2, "model.a.aliases: it must be a list of names"),
        ("[model.a]\naliases = ['x y']", 2, "model.a.aliases: 'x y' is no valid name of a model"),
        ("[model.a]\naliases = ['']", 2, "model.a.aliases: '' is no valid name of a model"),
        ("[model.a]\naliases = ['b']\n[model.b]", 2, "model.a.aliases: 'b' is the name of a model of this file"),
        ("[model.a]\naliases = ['A']", 2, "model.a.aliases: 'A' is the name of a model of this file"),
        ("[model.a]\naliases=['x']\n[model.b]\naliases=['X']", 4, "model.b.aliases: 'X' is an alias of 'a' too"),
        ("[model.a]\noptions = 5", 2, "model.a.options: it must be a table of options"),
        ("[model.a.options]\ntemprature = 1", 2, "model.a.options.temprature: there is no such option; perhaps tem"),
        (
            "[model.a.options]\n\nzz = 1",
            3,
            "model.a.options.zz: there is no such option; there are draft_num_predict, ",
        ),
        ("[model.a]\noptions.top_k = 'x'", 2, 'model.a.options.top_k: option "top_k" must be of type integer'),
        ("[model.a]\noptions = { top_k = 'x' }", 2, 'model.a.options.top_k: option "top_k" must be of type integer'),
        ("[model]\na = { options = { top_k = 'x' } }", 2, "model.a.options.top_k: option"),
        ("model.'a'.num_parallel = 0", 1, "model.a.num_parallel: it must be a whole number"),
        ("[model.a.options]\nseed = 1979-05-27", 2, "model.a.options.seed: option"),
        (f"[model.a.options]\ntemperature = {10**400}", 2, "model.a.options.temperature: the number is too large"),
        ("[model.a]\npin = 1", 2, "model.a.pin: it must be true or false"),
        ("[model.a]\npreload = 'yes'", 2, "model.a.preload: it must be true or false"),
        ("[model.a]\npreload = true\nkeep_alive = 0", 3, "model.a.keep_alive: with 0 the model would be unloaded"),
        ("model_sets = 5", 1, "model_sets: it must hold lists of models"),
        ("[model_sets]\na = 'b'", 2, "model_sets.a: it must be a list of names of models"),
        ("[model_sets]\n\na = ['b', 'c d']", 3, "model_sets.a: 'c d': it is no valid name of a model"),
        ("[model_sets]\na = ['b']", 2, "model_sets.a: it must have two models or more, each of them once"),
        ("[model_sets]\na = ['b', 'c', 'B']", 2, "model_sets.a: it must have two models or more, each of them once"),
        ("[model_sets]\na = ['b', 'c']\n[model.b]\npin = true", 2, "model_sets.a: 'b' is pinned, so that no other"),
        (
            "[model_sets]\na = ['b', 'c']\n[model]\nb.preload = true\nc.preload = true",
            2,
            "model_sets.a: 'b' and 'c' are both preloaded, but exclude each other",
        ),
        ('[models."a"]\nkeep_alive = 1', 1, "models: it is the folder of the models; the settings of a model stand in"),
    ],
)
def test_a_mistake_is_named_with_its_line(read, text, line, said):
    with pytest.raises(ConfigurationError) as failed:
        read(text)
    (found,) = failed.value.mistakes
    assert (found.line, found.text[: len(said)]) == (line, said)


def test_all_mistakes_are_told_at_once(read):
    with pytest.raises(ConfigurationError) as failed:
        read('[model.a]\nzz = 1\nnum_parallel = 0\n[model.a.options]\nseed = "x"\ntop_k = "x"\n')
    assert [each.line for each in failed.value.mistakes] == [2, 3, 5, 6]


@pytest.mark.parametrize(
    ("option", "most"), [("num_thread", Limits().max_threads), ("num_batch", Limits().max_batch_tokens)]
)
def test_an_option_that_every_request_would_fail_with_is_refused(read, option, most):
    check_bounds(read(f"[model.a.options]\n{option} = {most}"), Limits())
    with pytest.raises(ValueError, match=rf"model.a.options.{option}: it must be at most {most} \(PUNA_MAX_"):
        check_bounds(read(f"[model.a.options]\n{option} = {most + 1}"), Limits())


def test_no_option_has_the_name_of_a_setting():
    """Otherwise a key in the wrong table would be taken for the other one."""
    assert not set(KINDS) & set(SETTINGS)
