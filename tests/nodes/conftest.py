"""Models on nodes that run in processes of their own: `make test-nodes` runs this folder."""

import os
import tempfile
from functools import partial

import pytest
from tests.nodes.running import contract_on_nodes, node_of

from puna.process import cluster_certificates as certificates

collect_ignore_glob = [] if os.environ.get("PUNA_NODES") else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    certificates.make(folder)
    return folder


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for Unix sockets below it."""
    with tempfile.TemporaryDirectory(prefix="kills-", dir="/tmp") as folder:
        yield folder


@pytest.fixture
def start_node(cluster):
    """Starts `puna node run`."""
    return partial(node_of, cluster)


@pytest.fixture(scope="session")
def on_nodes(cluster):
    """Has the contract tests start their hosts on nodes."""
    with contract_on_nodes(cluster) as nodes:
        yield nodes
