"""Completion by the Tab key, as fingers use it."""

import re

from tests.e2e.server import PUNA
from tests.shells.conftest import tab


def test_commands_options_names_and_files(shell):
    with shell() as shown:
        for typed, expected in (
            ("puna ver", "version "),
            ("puna key rev", "revoke "),
            ("puna run llamita-", "llamita-embed "),
            # bash breaks words at ":" and "=".
            ("puna run llama3:8", "llama3:8b "),
            ("puna run --keepalive=5m llama3:7", "llama3:70b "),
            ("puna show llama3:8b --par", "--parameters "),
            ("puna run llama3:8b --think=me", "--think=medium "),
            ("puna --verbose run llamita-", "llamita-embed "),
            ("puna run llamita 'Look at this' pic", "picture.png "),
            ("puna create m --gguf pic", "picture.png "),
            ("puna create m --gguf=pic", "--gguf=picture.png "),
            ("puna create m --folder f", "folder/"),
            ("puna create m -q q8", "q8_0 "),
            (f"{PUNA} vers", "version "),
            ("true; puna run llamita-", "llamita-embed "),
        ):
            tab(shown, typed, re.escape(expected))


def test_several_candidates_are_listed(shell):
    with shell() as shown:
        tab(shown, "puna run llama3:\t", r"llama3:70b\s+llama3:8b|70b\s+8b")


def test_without_a_server_nothing_is_shown_and_the_rest_works(shell):
    with shell(PUNA_GRPC_HOST="127.0.0.1:1") as shown:
        shown.press("puna run llami\t")
        tab(shown, "ta --thin", "--think ")
