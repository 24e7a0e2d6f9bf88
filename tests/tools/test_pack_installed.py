import subprocess
import sys
from importlib.metadata import distribution

from tests.packaging.conftest import uv
from tools.pack_installed import pack


def test_a_packed_distribution_installs_as_the_original_did(tmp_path):
    wheel = pack("sortedcontainers", tmp_path)
    uv("pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "there", "--python", sys.executable, wheel)
    original = distribution("sortedcontainers")
    sources = [file for file in original.files if file.suffix == ".py"]
    assert len(sources) > 2
    for file in sources:
        assert (tmp_path / "there" / file).read_bytes() == file.locate().read_bytes()
    command = [sys.executable, "-c", "import sortedcontainers; print(sortedcontainers.__file__)"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path / "there")}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path))
