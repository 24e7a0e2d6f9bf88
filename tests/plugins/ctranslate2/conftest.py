"""The demo models as folders of CTranslate2."""

import pytest
from tests.plugins.ctranslate2 import convert_demo


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctranslate2") / "decoder"
    convert_demo.decoder(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctranslate2") / "encoder"
    convert_demo.encoder(folder)
    return folder
