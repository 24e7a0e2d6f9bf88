"""Plugins whose dependencies exclude each other, and Puna's own, in one server at the same time."""

import re

from tests.environments.conftest import answer, create, write_plugin

OLD = ("six==1.15.0", "protobuf==6.31.1", "grpcio==1.73.1")
NEW = ("six==1.16.0", "protobuf>=7.35", "grpcio>=1.80")
SHOWN = ("six", "protobuf", "grpcio")


def test_two_plugins_that_could_never_share_an_environment(place, tmp_path):
    for name, requirements in (("older", OLD), ("newer", NEW)):
        place.plugin("install", write_plugin(tmp_path / name, name, *requirements, text=name, shown=SHOWN))
    with place.serving(tmp_path / "models") as server:
        create(server, "older", "older", "scripted")
        create(server, "newer", "newer", "chatter")
        assert answer(server, "older") == "older six=1.15.0 protobuf=6.31.1 grpcio=1.73.1"
        assert re.fullmatch(r"newer six=1\.16\.0 protobuf=7\.\S+ grpcio=1\.[89]\S+", answer(server, "newer"))
        # And Puna's own backend, in Puna's environment.
        assert answer(server, "llamita")
        assert len(server.hosts()) == 3
