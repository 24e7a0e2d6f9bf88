"""The tables of models in the configuration file: what they say, and each mistake with its line."""

import math

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
    assert read(GOOD).of("small").keep_alive == math.inf
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
        ("[model.a]\nzzz = 1", 2, "model.a.zzz: there is no such setting of a model; there are aliases, options, "),
        ('[model."a"]\nkeep_alive = "soon"', 2, 'model.a.keep_alive: it must be a duration, such as "5m"'),
        ("[model.a]\nkeep_alive = true", 2, "model.a.keep_alive: it must be a duration"),
        (f"[model.a]\nkeep_alive = {10**400}", 2, "model.a.keep_alive: it must be a duration"),
        ("[model.a]\nnum_parallel = 0", 2, "model.a.num_parallel: it must be a whole number from 1 to 2147483647"),
        ("[model.a]\nmax_queue = true", 2, "model.a.max_queue: it must be a whole number from 0"),
        ("[model.a]\nmax_context_tokens = 3.5", 2, "model.a.max_context_tokens: it must be a whole number from 4"),
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
