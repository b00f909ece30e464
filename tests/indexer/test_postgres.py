"""The embedded PostgreSQL with real processes: who owns it, who joins it, and what is left when somebody is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from indexer import postgres as postgres_module
from indexer.errors import DatabaseUnavailable, InvalidSettings
from indexer.postgres import EmbeddedPostgres, find_binaries
from tests.postgres_fixtures import FAST

DURABLE = {"fsync": "off"}  # what was committed survives the death of the server, though not of the machine
REPOSITORY = Path(__file__).parents[2]
OWNER = """
import sys, time
from pathlib import Path
from indexer.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), options={"fsync": "off"})
print("owner" if server.start_or_join(60) else "joined", server.server_pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder to copy: making one takes longer than anything else here."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("prepared"), options=FAST)
    server.start()
    server.stop()
    return server.data


@pytest.fixture
def empty_root() -> Iterator[Path]:
    """A folder with a short name, so that the socket is in it, and no database yet."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        root = Path(folder).resolve() / "postgres"
        yield root
        if root.exists():  # a server whose owner was killed writes its last files by itself, before the folder may go
            eventually(lambda: is_let_go(root), "every server process let go of the folder")


@pytest.fixture
def root(empty_root: Path, prepared: Path) -> Path:
    """A folder with a database that is not running."""
    shutil.copytree(prepared, empty_root / "data")
    return empty_root


@pytest.fixture
def server(root: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(root, options=DURABLE)
    server.start()
    yield server
    server.stop()


@contextlib.contextmanager
def started(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that starts or joins the server, says which, and waits to be killed."""
    command = [sys.executable, "-c", OWNER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        try:
            yield process
        finally:
            process.kill()


def role_of(process: subprocess.Popen[str]) -> tuple[str, int]:
    """`owner` or `joined`, and the server's pid if it is the owner."""
    assert process.stdout is not None
    role, pid = process.stdout.readline().split()
    return role, 0 if pid == "None" else int(pid)


@contextlib.contextmanager
def other_process(root: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Another process, its role, and the server's pid if it is the owner, else 0."""
    with started(root) as process:
        yield process, *role_of(process)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"it never happened that {what}"
        time.sleep(0.01)


def is_let_go(root: Path) -> bool:
    """Whether no process, server or owner, holds the folder's lock any more."""
    with (root / "owner.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(statement)


def rows_of(server: EmbeddedPostgres, table: str) -> int:
    with psycopg.connect(server.dsn()) as connection:
        counted = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert counted is not None
    return int(counted[0])


def answers(server: EmbeddedPostgres) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.dsn(), connect_timeout=5):
        return True
    return False


def test_data_survives_stop_and_start_and_no_process_does(server: EmbeddedPostgres) -> None:
    run(server, "CREATE TABLE kept AS SELECT generate_series(1, 10)")
    pid = server.server_pid
    assert pid is not None
    server.stop()
    assert server.server_pid is None and not is_running(pid) and not answers(server)
    server.stop()
    server.start()
    assert rows_of(server, "kept") == 10


def test_only_its_own_user_can_reach_it(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    assert server.socket_dir.stat().st_mode & 0o077 == 0


def test_second_owner_is_refused_and_first_goes_on(server: EmbeddedPostgres) -> None:
    with pytest.raises(DatabaseUnavailable, match=f"in use by process {os.getpid()}"):
        EmbeddedPostgres(server.root).start()
    with other_process(server.root) as (_, role, pid):
        assert (role, pid) == ("joined", 0)
    assert answers(server), "the one who joined must not stop it"


def test_of_many_processes_starting_at_once_one_owns_it(empty_root: Path) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(empty_root)) for _ in range(3)]
        assert sorted(role_of(process)[0] for process in processes) == ["joined", "joined", "owner"]


def test_server_outlives_the_thread_that_started_it(root: Path) -> None:
    server = EmbeddedPostgres(root, options=FAST)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        pid = server.server_pid
        run(server, "SELECT pg_sleep(0.2)")
        assert server.server_pid == pid is not None
    finally:
        server.stop()


def test_server_shuts_down_cleanly_when_its_owner_is_killed(root: Path) -> None:
    with other_process(root) as (owner, role, pid):
        assert role == "owner"
        joined = EmbeddedPostgres(root)
        assert joined.join()
        run(joined, "CREATE TABLE kept AS SELECT generate_series(1, 10)")
        owner.kill()
        owner.wait()
        eventually(lambda: not is_running(pid), "the server ended")
    assert "database system is shut down" in (root / "postgres.log").read_text()
    assert not joined.join()
    with other_process(root) as (_, role, _):
        assert role == "owner" and rows_of(joined, "kept") == 10, "a new owner serves those who had joined the old one"


def test_server_that_is_killed_is_started_again(server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture) -> None:
    run(server, "CREATE TABLE kept AS SELECT generate_series(1, 10)")
    pid = server.server_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.server_pid not in (pid, None) and answers(server), "the server was back")
    assert rows_of(server, "kept") == 10
    assert "ended unexpectedly" in caplog.text


def test_data_folder_is_never_used_twice(root: Path) -> None:
    """The owner is dead, its server not yet: nobody may start a second one on the same files."""
    with other_process(root) as (owner, _, pid):
        os.kill(pid, signal.SIGSTOP)
        try:
            owner.kill()
            owner.wait()
            with pytest.raises(DatabaseUnavailable, match="in use"):
                EmbeddedPostgres(root).start()
            assert is_running(pid)
        finally:
            os.kill(pid, signal.SIGCONT)
        heir = EmbeddedPostgres(root, options=FAST)
        assert heir.start_or_join(30), "once the old server is gone, there is a new one"
        heir.stop()


def test_waiting_for_an_owner_who_does_not_answer_has_an_end(server: EmbeddedPostgres) -> None:
    (server.root / "server.json").write_text("not JSON")
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        EmbeddedPostgres(server.root).start_or_join(0.2)


def test_stale_pid_file_with_the_number_of_another_process_is_removed(server: EmbeddedPostgres) -> None:
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n1\n5432\n\n\n  1 1\nready\n")
    server.start()
    assert answers(server)


def test_folder_half_made_when_killed_is_made_again(empty_root: Path) -> None:
    (empty_root / "data.new" / "base").mkdir(parents=True)
    (empty_root / "data.new" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(empty_root, options=FAST)
    server.start()
    assert answers(server)
    server.stop()


def test_folder_that_is_no_database_is_left_alone(empty_root: Path) -> None:
    (empty_root / "data").mkdir(parents=True)
    (empty_root / "data" / "photos").write_text("mine")
    with pytest.raises(DatabaseUnavailable, match="not empty and no database"):
        EmbeddedPostgres(empty_root).start()
    assert (empty_root / "data" / "photos").read_text() == "mine"


@pytest.mark.parametrize("name", ["a b&c?d=e%20#ü", "one,two", "deep/" + "x" * 100])
def test_any_folder_name_will_do(empty_root: Path, prepared: Path, name: str) -> None:
    root = empty_root / name
    shutil.copytree(prepared, root / "data")
    server = EmbeddedPostgres(root, options=FAST)
    server.start()
    try:
        assert answers(server)
        joined = EmbeddedPostgres(root)
        assert joined.join() and joined.url() == server.url()
    finally:
        server.stop()
        if not server.socket_dir.is_relative_to(root):
            server.socket_dir.rmdir()


def test_socket_folder_of_somebody_else_is_refused(empty_root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (empty_root / "run").mkdir(parents=True)
    os.chown(empty_root / "run", 12345, 12345)
    with pytest.raises(DatabaseUnavailable, match="belongs to another user"):
        EmbeddedPostgres(empty_root).start()


def test_root_without_user_namespaces_becomes_nobody(empty_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    nobody = postgres_module.pwd.getpwnam("nobody")
    reachable = ["setpriv", "--reuid", str(nobody.pw_uid), "--clear-groups", "test", "-x", find_binaries() / "postgres"]
    if subprocess.run(reachable).returncode != 0:
        pytest.skip("nobody may not run the PostgreSQL of this installation")
    monkeypatch.setattr(postgres_module.shutil, "which", lambda name: None)
    empty_root.parent.chmod(0o755)
    server = EmbeddedPostgres(empty_root, options=FAST)
    server.start()
    try:
        assert answers(server) and Path(f"/proc/{server.server_pid}").stat().st_uid == nobody.pw_uid
    finally:
        server.stop()


def test_server_that_cannot_start_says_why(root: Path) -> None:
    server = EmbeddedPostgres(root, options={"shared_buffers": "nonsense"})
    with pytest.raises(DatabaseUnavailable, match=r"did not start.*shared_buffers"):
        server.start()
    repaired = EmbeddedPostgres(root, options=FAST)
    repaired.start()
    assert answers(repaired), "the failed start gave the folder free again"
    repaired.stop()


def test_missing_binaries_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="PERSON_SEARCH_POSTGRES_BIN"):
        EmbeddedPostgres(tmp_path / "data", bin=tmp_path).start()
    assert (find_binaries() / "postgres").exists()
