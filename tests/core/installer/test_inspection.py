"""The program runs in the Python of a new environment. A folder of packages stands in for the environment here."""

import json
import subprocess
import sys

from puna.installer import inspection


def distribution(folder, name, entry="", requested=False):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[puna.backends]\n{entry}\n" if entry else "")
    if requested:
        (info / "REQUESTED").touch()


def inspect(folder):
    code = f"import sys; sys.prefix = {str(folder)!r}; sys.path[:] = [{str(folder / 'site')!r}, *sys.path[1:]]\n"
    code += "import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", code, inspection.__file__],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_it_finds_plugins_without_importing_them(tmp_path):
    site = tmp_path / "site"
    (site / "puna_echo").mkdir(parents=True)
    (site / "puna_echo/__init__.py").write_text("raise SystemExit")
    distribution(site, "puna-echo", "echo = puna_echo.backend:Echo", requested=True)
    distribution(site, "puna-other", "other = puna_missing:Other")
    distribution(site, "six")
    found = inspect(tmp_path)
    assert found["packages"] == ["puna-echo==1.0", "puna-other==1.0", "six==1.0"]
    assert sorted(found["plugins"], key=lambda each: each["distribution"]) == [
        {"distribution": "puna-echo", "version": "1.0", "requested": True, "backends": ["echo"]},
        {"distribution": "puna-other", "version": "1.0", "requested": False, "backends": ["other"]},
    ]
    assert found["paths"] == [str(site)]
