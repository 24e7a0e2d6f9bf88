"""Follows the section of a language in proto/README.md word by word, as its reader would."""

import os
import re
import shutil

from tests.clients.projects import PROTO, ROOT, run

ADDRESS = "localhost:11435"
SECURE = "puna.example.com:11435"
_FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def blocks(heading):
    """Return the fenced blocks of a section under "Clients": its language, the file that it is for, its text."""
    clients = (PROTO / "README.md").read_text().partition("\n## Clients\n")[2]
    sections = dict(_SECTION.findall(clients))
    return _FENCE.findall(sections[heading])


def follow(heading, folder, address, path, secure=None, **variables):
    """Write the files and run the commands of a section in an empty folder; return what the commands printed.

    A block "```go main.go" is a file, and a block "```sh" has commands. They may read `$PUNA`, the folder of this
    checkout. `path`: folders with the tools that the section says are needed. `secure`: a server with TLS and keys, for
    sections that call SECURE with the key in `$PUNA_API_KEY` and the authority's certificate in ca.pem.
    """
    environment = os.environ | variables | {"PUNA": str(ROOT)}
    addresses = {ADDRESS: address}
    if secure:
        addresses[SECURE] = secure.grpc
        environment["PUNA_API_KEY"] = secure.key
        shutil.copy(secure.ca, folder / "ca.pem")
    printed = ""
    for language, name, text in blocks(heading):
        for documented, actual in addresses.items():
            text = text.replace(documented, actual)
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        elif language == "sh":
            printed += run("sh", "-euc", text, cwd=folder, env=environment, path=path)
    return printed


def check(printed):
    """The programs of all languages print the tool call, the answer with the tool's result, and an error's details."""
    assert re.search(r"get_weather.*Oslo", printed), printed
    assert "18" in printed, printed
    assert re.search(r"NOT_?FOUND", printed, re.IGNORECASE), printed
    assert "MODEL_NOT_FOUND" in printed, printed
    assert "nowhere" in printed, printed


def check_secure(printed):
    """The second program, for a server with TLS and keys, prints the names of the models."""
    assert printed.splitlines()[-1].endswith(":latest"), printed
    assert "\nllamita:latest\n" in printed, printed
