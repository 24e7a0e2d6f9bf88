"""The systemd unit: checked by systemd's own tools, and run on a machine that systemd boots in a container."""

import json
import re
import shutil
import subprocess

import pytest
from tests.apps.installed import debian
from tests.deploy.conftest import DEPLOY, done

from puna.cli.serve import CLOSING_SECONDS
from puna.limits import DEFAULT_LIMITS

UNIT = DEPLOY / "systemd/puna.service"
EXPOSURE = 1.4
"""The most that `systemd-analyze security` may give, of 10. The network and @resources are the largest parts."""

SCENARIO = """#!/bin/bash
cd /check && exec >log 2>&1
ask() { curl -s "$@" localhost:11434/api/generate -d @prompt; }
systemctl start puna
for each in $(seq 240); do curl -sf localhost:11434/ >ready && break; sleep 0.5; done
ask >generate
puna-admin ps >ps
pid=$(systemctl show --property=MainPID --value puna)
cp /proc/$pid/status status
nsenter --target $pid --mount ls /dev >devices
nsenter --target $pid --mount touch /usr/x /etc/x 2>touch
echo 'keep_alive = "8m"' >/etc/puna/config.toml
systemctl reload puna; echo $? >reload
for each in $(seq 60); do journalctl -u puna | grep -q "read again" && break; sleep 0.5; done
puna-admin key create alice >key
for each in $(seq 60); do ask -o /dev/null -w '%{http_code}\\n' >refused; grep -q 401 refused && break; sleep 0.5; done
ask -o /dev/null -w '%{http_code}\\n' -H "Authorization: Bearer $(grep -o '^puna_.*' key)" >allowed
systemctl stop puna
systemctl show puna --property=Result --property=ExecMainStatus >end
journalctl -u puna --no-pager >journal
systemctl --no-block poweroff
"""
CHECK = """[Unit]
After=basic.target dbus.socket
[Service]
Type=oneshot
ExecStart=/check/run
"""


@pytest.fixture
def placed(tmp_path):
    """A copy of the unit whose program exists on this machine, as `verify` wants it."""
    path = tmp_path / "puna.service"
    path.write_text(UNIT.read_text().replace("/opt/puna/bin/puna", "/bin/true"))
    return path


@pytest.mark.parametrize("drop_in", [None, "gpu.conf"])
def test_systemd_understands_every_line(placed, drop_in):
    if drop_in:
        folder = placed.with_name("puna.service.d")
        folder.mkdir()
        shutil.copy(DEPLOY / "systemd" / drop_in, folder)
    checked = subprocess.run(
        ["systemd-analyze", "verify", placed], capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_exposure_is_low(placed):
    command = (
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={EXPOSURE * 10:.0f}",
        "--no-pager",
        placed,
    )
    assert "OK" in done(*command).splitlines()[-1]


def test_systemd_waits_until_the_server_has_drained():
    seconds = float(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)[1])
    assert DEFAULT_LIMITS.max_drain_seconds + CLOSING_SECONDS < seconds


@pytest.fixture(scope="module")
def machine(image):
    """The folder with what the scenario wrote."""
    debian("systemd-nspawn", "systemd-container")
    _, root = image
    # As after an installation from wheels: no folder of the image's account.
    shutil.rmtree(root / "var/lib/puna")
    folder = root / "check"
    folder.mkdir()
    (folder / "run").write_text(SCENARIO)
    (folder / "run").chmod(0o755)
    prompt = {"model": "llamita", "prompt": "Why is the sky blue?", "think": False, "stream": False}
    (folder / "prompt").write_text(json.dumps(prompt))
    (root / "etc/puna").mkdir(exist_ok=True)
    system = root / "etc/systemd/system"
    shutil.copy(UNIT, system)
    shutil.copy(DEPLOY / "systemd/puna.sysusers", root / "usr/lib/sysusers.d/puna.conf")
    shutil.copy(DEPLOY / "systemd/puna-admin", root / "usr/local/sbin")
    (system / "check.service").write_text(CHECK)
    wants = system / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "check.service").symlink_to("../check.service")
    boot = (
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--private-network",
    )
    subprocess.run([*boot, "-D", root], stdin=subprocess.DEVNULL, capture_output=True, timeout=240, check=False)
    assert (folder / "journal").exists(), (folder / "log").read_text()
    return folder


def text(machine, name):
    return (machine / name).read_text()


def test_the_service_runs_models(machine):
    assert "blue" in json.loads(text(machine, "generate"))["response"], text(machine, "journal")
    assert "llamita" in text(machine, "ps")


def test_the_restrictions_hold(machine):
    status = dict(line.split(":\t", 1) for line in text(machine, "status").splitlines())
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()
    assert not {"kmsg", "mem", "vda", "sda"} & set(text(machine, "devices").split())
    assert text(machine, "touch").count("Read-only file system") == 2


def test_reload_reads_the_configuration_again(machine):
    assert text(machine, "reload") == "0\n"
    assert "changed keep_alive" in text(machine, "journal")


def test_a_key_of_puna_admin_closes_the_server_to_others(machine):
    assert (text(machine, "refused"), text(machine, "allowed")) == ("401\n", "200\n")


def test_the_service_ends_in_order(machine):
    assert set(text(machine, "end").split()) == {"Result=success", "ExecMainStatus=0"}
    assert "Traceback" not in text(machine, "journal")
