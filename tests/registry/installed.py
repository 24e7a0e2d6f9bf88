"""Debian's docker-registry: found, or fetched into the user's cache. Nothing is set up as a service."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.apt import alone

PACKAGE = "docker-registry"
SECONDS = 300


def _run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


def docker_registry():
    """Return the program's path. Raises RuntimeError when it can neither be found nor fetched."""
    if found := shutil.which(PACKAGE):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "puna-tests"
    unpacked = cache / PACKAGE / "usr/bin" / PACKAGE
    if unpacked.exists():
        return str(unpacked)
    try:
        _fetch(cache)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        if os.geteuid() != 0:
            raise RuntimeError(f"{PACKAGE} is not installed and cannot be fetched: {error}") from error
        with alone():
            _run("apt-get", "update", cwd=cache)
            _run("apt-get", "install", "-y", "--no-install-recommends", PACKAGE, cwd=cache)
        return shutil.which(PACKAGE) or f"/usr/bin/{PACKAGE}"
    return str(unpacked)


def _fetch(cache):
    """Unpack the package into the cache; package lists of one's own, so that no rights are needed and none are old."""
    lists, work = cache / "lists", cache / "work"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    options = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User=")
    _run("apt-get", *options, "update", cwd=work)
    _run("apt-get", *options, "download", PACKAGE, cwd=work)
    (package,) = work.glob("*.deb")
    _run("dpkg", "-x", package.name, "unpacked", cwd=work)
    (work / "unpacked").replace(cache / PACKAGE)
    shutil.rmtree(work)
    shutil.rmtree(lists)
