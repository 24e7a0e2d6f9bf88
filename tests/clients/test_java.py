"""The client in Java: grpc-java, with code by protoc-gen-grpc-java."""

import os
import re

import pytest
from tests.apps.installed import debian
from tests.clients.projects import KEPT, PROTO, copy, run
from tests.clients.readme import check, check_secure, follow

REPOSITORY = f"-Dmaven.repo.local={KEPT / 'maven'}"
"""The option of Maven that names the folder of its packages, which is kept between runs."""
COLORS = re.compile(r"\x1b\[\d*m")
"""What Maven writes at its end, whether or not its output is a terminal."""


@pytest.fixture(autouse=True, scope="module")
def maven():
    """Maven and a JDK, installed if they are missing and the tests run as root."""
    debian("javac", "default-jdk-headless")
    debian("mvn", "maven")


def test_the_suite_in_java(variables):
    home = copy("java", "target")
    run("mvn", "-q", "-B", REPOSITORY, f"-Dproto={PROTO}", "test", cwd=home, env=os.environ | variables)


def test_the_readme_in_java(plain, secure, tmp_path):
    printed = COLORS.sub("", follow("Java", tmp_path, plain.grpc, "", secure, MAVEN_OPTS=REPOSITORY)).strip()
    check(printed)
    check_secure(printed)
