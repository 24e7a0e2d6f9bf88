"""Models on nodes, as the page of models shows them."""

import signal

import pytest
from playwright.sync_api import expect
from tests.dashboard.conftest import running, shot
from tests.dashboard.test_models import row
from tests.nodes.running import node_of

from puna.process import cluster_certificates


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    cluster_certificates.make(folder)
    return folder


@pytest.fixture(scope="module")
def nodes(cluster):
    with node_of(cluster) as one, node_of(cluster) as two:
        yield one, two


@pytest.fixture(scope="module")
def server(cluster, nodes, tmp_path_factory):
    """A server whose models run on two nodes."""
    environment = {
        "PUNA_LAUNCHER": "static",
        "PUNA_HOSTS": ",".join(each.address for each in nodes),
        "PUNA_CLUSTER_TLS": str(cluster / "core"),
    }
    with running(tmp_path_factory.mktemp("home"), **environment) as server:
        yield server


def test_nodes_and_replicas_are_shown_and_a_node_that_is_lost(looker, server, nodes, accessible):
    page = looker.open(server)
    first, second = (row(page, "Nodes of the server", each.address) for each in nodes)
    for each in (first, second):
        expect(each).to_contain_text("connected")
        expect(each).to_contain_text("GB")
    expect(page.get_by_role("heading", name="Replicas")).to_have_count(0)
    page.get_by_role("button", name="Load llamita", exact=True).click()
    replica = row(page, "Replicas of models", "llamita 1")
    expect(replica).to_contain_text("127.0.0.1:")
    accessible(page)
    shot(page, "models-nodes")
    place = next(each for each in nodes if each.hosts())
    expect(replica).to_contain_text(place.address)
    expect(replica).to_contain_text(str(place.hosts()[0]))
    place.end(signal.SIGKILL)
    lost = row(page, "Nodes of the server", place.address)
    expect(lost).to_contain_text("disconnected")
    expect(lost).to_contain_text("cannot be reached")
    expect(replica).to_have_count(0)


def test_a_server_without_nodes_shows_no_panel_of_them(looker, recorder):
    page = looker.open(recorder)
    expect(page.get_by_role("region", name="Installed models")).to_be_visible()
    page.get_by_role("button", name="Load llamita", exact=True).click()
    expect(row(page, "Loaded models", "llamita")).to_be_visible()
    expect(page.get_by_role("heading", name="Nodes")).to_have_count(0)
    expect(page.get_by_role("heading", name="Replicas")).to_have_count(0)
