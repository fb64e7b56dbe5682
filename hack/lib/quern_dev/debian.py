"""Debian packages: installs what is missing of hack/packages.txt, without starting any service."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from . import console, paths

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_ASIDE = Path("/usr/sbin/policy-rc.d.before-quern")
_POLICY_MARK = "written by quern's hack/setup"
# Services that Debian would enable at boot. The cluster starts its own copies, in its own network.
_SERVICES = ("containerd.service", "prometheus.service")


def listed(section: str) -> list[str]:
    """The packages under `[section]` in hack/packages.txt."""
    names, current = [], None
    for line in (paths.REPO / "hack" / "packages.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            current = line.strip("[]")
        elif line and current == section:
            names += line.split()
    return names


def missing(names: list[str]) -> list[str]:
    result = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
                            capture_output=True, text=True, check=False)
    present = {line.split()[0] for line in result.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in present]


@contextlib.contextmanager
def _services_stay_off():
    """While packages are installed, policy-rc.d forbids every service start; the old one is put back."""
    if _POLICY.exists():
        os.replace(_POLICY, _POLICY_ASIDE)
    _POLICY.write_text(f"#!/bin/sh\n# {_POLICY_MARK}; removed when it ends\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _restore_policy()


def _repair_policy() -> None:
    """Takes our policy-rc.d away if a run that was killed has left it."""
    if os.geteuid() == 0 and _POLICY.exists() and _POLICY_MARK in _POLICY.read_text(errors="replace"):
        _restore_policy()


def _restore_policy() -> None:
    if _POLICY_ASIDE.exists():
        os.replace(_POLICY_ASIDE, _POLICY)
    else:
        _POLICY.unlink(missing_ok=True)


def ensure(sections: list[str]) -> None:
    """Installs the sections' packages. Needs root only when something is missing."""
    if not shutil.which("apt-get"):
        raise console.Failure("apt-get was not found: hack/setup installs Debian 12 packages. On another system, "
                              "install the counterparts of hack/packages.txt and pass --no-packages.")
    _repair_policy()
    wanted = missing([name for section in sections for name in listed(section)])
    if not wanted:
        return
    if os.geteuid() != 0:
        raise console.Failure("these Debian packages are missing and need root to be installed; as root, run:\n"
                              f"  apt-get install --no-install-recommends {' '.join(wanted)}")
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    log = paths.logs_dir() / "apt.log"
    wait = ["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=5"]
    # `--error-on=any` is not given: another, unreachable source on the machine must not stop us.
    console.run_logged("refresh Debian's package lists", ["apt-get", *wait, "update"], log, env=env, attempts=3)
    with _services_stay_off():
        if subprocess.run(["dpkg", "--audit"], capture_output=True, check=False).stdout:
            console.run_logged("finish an installation that was interrupted", ["dpkg", "--configure", "-a"], log, env=env)
        console.run_logged(f"install {len(wanted)} Debian packages",
                           ["apt-get", *wait, "install", "-y", "--no-install-recommends", *wanted],
                           log, env=env, attempts=3)
    still = missing(wanted)
    if still:
        raise console.Failure(f"apt-get reported success, but these are not installed: {' '.join(still)} (see {log})")
    _disable_services(wanted)


def _disable_services(installed: list[str]) -> None:
    """Services that this run brought in do not start at the next boot either."""
    ours = [service for service in _SERVICES if service.removesuffix(".service") in installed]
    if ours and shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", *ours], capture_output=True, check=False)
