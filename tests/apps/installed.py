"""Installs the programs: packages for Python, npm, Maven and Debian.

Everything is kept in KEPT between runs. An environment is made again when the file that pins its packages changes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.apt import alone
from tests.uv import UV

HERE = Path(__file__).parent
KEPT = Path(sys.prefix) / "apps"
"""The folder of all environments. It is inside .venv, which git ignores."""
SECONDS = 600


def run(*command, **how):
    """Run an installer; fail with its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **how)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}", pytrace=False)


def python(name):
    """Return the Python of an environment that holds the packages of requirements/NAME.txt."""
    pins = HERE / "requirements" / f"{name}.txt"
    home = KEPT / name

    def install():
        run(UV, "venv", "--quiet", "--python", sys.executable, home)
        run(UV, "pip", "install", "--quiet", "--no-deps", "--python", home / "bin/python", "-r", pins)

    _once(home, pins.read_bytes(), install)
    return home / "bin/python"


def node(name, binaries):
    """Return a folder that holds the packages of node/NAME/package-lock.json, and the scripts beside it."""
    source, home = HERE / "node" / name, KEPT / f"node-{name}"

    def install():
        shutil.copytree(source, home)
        environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
        # `npm ci` refuses a lock file without the optional packages of other platforms, which not every mirror holds.
        run(binaries / "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=home, env=environment)

    _once(home, (source / "package-lock.json").read_bytes(), install)
    shutil.copytree(source, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    return home


def java(name):
    """Return a command that runs the class Drive of java/NAME, compiled against what its pom.xml names."""
    debian("javac", "default-jdk-headless")
    maven = debian("mvn", "maven")
    source, home = HERE / "java" / name, KEPT / f"java-{name}"
    build = home / "build"

    def install():
        shutil.copytree(source, build)
        repository = f"-Dmaven.repo.local={home / 'repository'}"
        classpath = f"-Dmdep.outputFile={home / 'classpath'}"
        run(maven, "-q", "-B", repository, classpath, "compile", "dependency:build-classpath", cwd=build)

    _once(home, b"".join(each.read_bytes() for each in sorted(source.rglob("*.*")) if each.is_file()), install)
    return "java", "-cp", f"{build / 'target/classes'}:{(home / 'classpath').read_text()}", "Drive"


def debian(program, *packages):
    """Return the path of a program, after installing the packages if it is missing."""
    if not shutil.which(program):
        if os.geteuid() != 0:
            pytest.fail(f"{program} is missing: apt-get install {' '.join(packages)}", pytrace=False)
        with alone():
            run("apt-get", "update")
            run("apt-get", "install", "-y", "--no-install-recommends", *packages)
    return shutil.which(program)


def _once(home, pins, install):
    """Run `install` unless it made `home` from the same pins; remove what an earlier run left half made."""
    stamp, digest = home / ".pins", hashlib.sha256(pins).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(exist_ok=True)
        install()
        stamp.write_text(digest)
