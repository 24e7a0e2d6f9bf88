"""When the kernels are loaded and switched on."""

import os
import subprocess
import sys

import pytest
from tests.plugins.ggml_kernels.processor import able

from puna_ggml_kernels import loader


def test_they_are_on_where_the_processor_has_what_they_need():
    assert (loader.install() is not None) == able()


def test_the_environment_turns_them_off():
    code = "from puna_ggml_kernels import loader; print(loader.install())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PUNA_KERNELS": "0"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None"]


@pytest.mark.parametrize(("versions", "fits"), [(loader._TRIED, True), (("0.1.0",), False)])
def test_only_versions_of_ggml_that_were_tried_are_touched(monkeypatch, versions, fits):
    monkeypatch.setattr(loader, "_TRIED", versions)
    assert loader._fits() == fits
