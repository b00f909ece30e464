"""Several hosts on one machine: Linux network namespaces, each with a cable to one switch that can be pulled.

A host has its own interfaces, addresses, ports and loopback; the disk is everybody's, as a network folder is that all
mount. Frames of a pulled cable vanish: nobody is told that a connection is lost, which is the hard case.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_networks = itertools.count(1)


@functools.cache
def why_not() -> str | None:
    """Why this machine has no network namespaces for us; None if it has."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"ps{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"`ip netns` is not permitted: {made.stderr.strip()}"
    try:
        veth = ["ip", "-n", name, "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"]
        bridge = ["ip", "-n", name, "link", "add", "bridge", "type", "bridge"]
        for command in (veth, bridge):
            if (failed := subprocess.run(command, capture_output=True, text=True)).returncode != 0:
                return f"`{' '.join(command)}` failed: {failed.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
    return None


class Host:
    """One host of a `network`. What runs on it ends with it."""

    def __init__(self, namespace: str, switch: str, number: int) -> None:
        self.address = f"10.77.0.{number}"
        self._namespace, self._switch, self._port = namespace, switch, f"port{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", namespace)
        _ip("-n", switch, "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", switch, "link", "set", self._port, "up")
        self.plug_in()
        self._thread = ThreadPoolExecutor(1, initializer=self._enter, thread_name_prefix=namespace)

    def plug_in(self) -> None:
        _ip("-n", self._switch, "link", "set", self._port, "master", "switch")

    def cut_off(self) -> None:
        """Pull the cable: frames from and to the host vanish."""
        _ip("-n", self._switch, "link", "set", self._port, "nomaster")

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call something here: the sockets it opens are this host's."""
        return self._thread.submit(function, *arguments).result(300)

    def start(self, module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Run a module as a process on this host."""
        command = ["ip", "netns", "exec", self._namespace, sys.executable, "-m", module, *arguments]
        with log.open("ab") as out:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out, cwd=ROOT)
        self._processes.append(process)
        return process

    def lose_power(self) -> None:
        """kill -9 everything that `start` started here."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        self._processes.clear()

    def remove(self) -> None:
        self.lose_power()
        self._thread.shutdown()
        _ip("netns", "del", self._namespace)

    def _enter(self) -> None:
        with Path(f"/run/netns/{self._namespace}").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def network(*names: str) -> Iterator[list[Host]]:
    """Hosts at one switch, gone afterwards. Skips the test where that is not permitted."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    prefix = f"ps{os.getpid()}-{next(_networks)}"
    switch = f"{prefix}-switch"
    with ExitStack() as stack:
        _ip("netns", "add", switch)
        stack.callback(_ip, "netns", "del", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        hosts = []
        for number, name in enumerate(names, 1):
            hosts.append(Host(f"{prefix}-{name}", switch, number))
            stack.callback(hosts[-1].remove)
        yield hosts


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
