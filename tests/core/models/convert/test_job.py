import pytest
from tests.core.models.convert import folders
from tests.core.models.convert.conftest import files_of

from puna.models.convert import job
from puna.models.convert.failure import ConversionError


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", ""])
def test_names_stay_inside(name, tmp_path):
    files = files_of(folders.llama().write(tmp_path / "m"))
    with pytest.raises(ConversionError, match=r"^file path must be relative$"):
        list(job.run(files | {name: files["config.json"]}, str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_progress_counts_bytes(tmp_path):
    target = tmp_path / "out"
    progress = list(job.run(files_of(folders.llama().write(tmp_path / "m")), str(target)))
    assert progress == sorted(progress)
    done, total = progress[-1]
    assert done == total < target.stat().st_size
