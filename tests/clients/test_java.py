"""The client in Java: grpc-java, with code by protoc-gen-grpc-java."""

import os

from tests.apps.installed import debian
from tests.clients.projects import KEPT, PROTO, copy, run


def maven():
    """Return the path of Maven, and the option that names the folder of its packages."""
    debian("javac", "default-jdk-headless")
    return debian("mvn", "maven"), f"-Dmaven.repo.local={KEPT / 'maven'}"


def test_the_suite_in_java(variables):
    home = copy("java", "target")
    environment = os.environ | variables | {"PUNA_PROTO": str(PROTO)}
    run(*maven(), "-q", "-B", f"-Dproto={PROTO}", "test", cwd=home, env=environment)
