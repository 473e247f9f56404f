"""Real database servers for tests: from the system's packages, in folders of their own.

A server listens on a free port of 127.0.0.1 and on a socket in its folder; it is started once a
session, and a test that stops or holds it must start it again.  Without the package a test is
skipped and says which one to install; where CI=true nothing may be skipped.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import pytest

USER, PASSWORD, DATABASE = "homer", "p@ss:w/rd%", "homer_data"
START_SECONDS = 60.0


class DatabaseServer:
    """A server's process and its folder.

    durable: whether commits reach the disk; tests of behaviour do without.
    """

    package = ""

    def __init__(self, folder: Path, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    # What each server has of its own

    def prepare(self) -> None:
        """Make the database cluster, the user and the database."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The server's command line."""
        raise NotImplementedError

    def connection(self) -> Any:
        """A driver's connection as the test user, committing each statement."""
        raise NotImplementedError

    def root(self, database: str = "") -> Any:
        """A connection that may do anything."""
        raise NotImplementedError

    def cut(self) -> None:
        """End the connections of the test user, as an administrator does."""
        raise NotImplementedError

    def admit(self, yes: bool) -> None:
        """Whether the test user may connect; connections that are there stay."""
        raise NotImplementedError

    @contextlib.contextmanager
    def crowded(self) -> Iterator[None]:
        """Have no connection left for the test user meanwhile."""
        raise NotImplementedError
        yield

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            self.connection().close()
        except Exception:  # any driver's error means not yet
            return False
        return True

    # What tests do with it

    def url(
        self, scheme: str, user: str = USER, password: str = PASSWORD, database: str = DATABASE
    ):
        """Its address as a script names it; special characters of the password are escaped."""
        return f"{scheme}://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdout=output, stderr=output, **self.identity()
            )
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.package}: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Have it end; connections are cut."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9."""
        self._end(signal.SIGKILL)

    def hold(self) -> None:
        """Let it hang: connections stay, and nothing answers."""
        held = self.processes()
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        # A thread on the other processor may answer once more before the signal is there.
        until = time.monotonic() + START_SECONDS
        while not all(_is_held(pid) for pid in held):
            assert time.monotonic() < until, "the server goes on"

    def release(self) -> None:
        """Let it go on."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def processes(self) -> list[int]:
        """The server's process and those it started."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """Processor time it has used, ended processes included."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:13]))
            if pid == self.process.pid:
                total += sum(map(int, fields[13:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query gives."""
        return _rows(self.connection(), query)

    def rows_as_root(self, query: str, database: str = "") -> list[tuple[Any, ...]]:
        """The same, when the test user may not ask."""
        return _rows(self.root(database), query)

    def drop(self) -> None:
        """Drop the test user's database; nobody may be connected to it."""
        self.rows_as_root(f"DROP DATABASE {DATABASE}")

    def create(self) -> None:
        """Make it again, empty."""
        self.rows_as_root(f"CREATE DATABASE {DATABASE}")

    def identity(self) -> dict[str, Any]:
        """As whom it runs, for Popen."""
        return {}

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


class PostgresServer(DatabaseServer):
    """PostgreSQL of Debian's package."""

    package = "postgresql"

    def __init__(self, folder: Path, durable: bool = False) -> None:
        super().__init__(folder, durable)
        self.programs = postgres_programs()
        self.data = folder / "data"

    def prepare(self) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "root", "-A", "trust", "-E", "UTF8", "-N")
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.data / "pg_hba.conf").write_text(rules)
        self.answers = self._answers_to_root  # type: ignore[method-assign]
        self.start()
        del self.answers  # type: ignore[method-assign]
        connection = self.root()
        connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        connection.close()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "on" if self.durable else "off",
            "timezone": "Asia/Tokyo",  # what homerd writes must not depend on it
        }
        options = [part for item in settings.items() for part in ("-c", "{}={}".format(*item))]
        return [str(self.programs / "postgres"), "-D", str(self.data), *options]

    def connection(self) -> Any:
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=DATABASE,
            autocommit=True,
            connect_timeout=2,
            options="-c timezone=UTC",
        )

    def root(self, database: str = "") -> Any:
        import psycopg

        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user="root",
            dbname=database or "postgres",
            autocommit=True,
        )

    def create(self) -> None:
        self.rows_as_root(f"CREATE DATABASE {DATABASE} OWNER {USER}")

    def cut(self) -> None:
        self.rows_as_root(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{USER}'"
        )

    def admit(self, yes: bool) -> None:
        self.rows_as_root(f"ALTER ROLE {USER} {'LOGIN' if yes else 'NOLOGIN'}")

    @contextlib.contextmanager
    def crowded(self) -> Iterator[None]:
        # The same SQLSTATE, 53300, as max_connections gives, which needs a restart to change.
        self.rows_as_root(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT 0")
        yield
        self.rows_as_root(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1")

    def stop(self) -> None:
        self._end(signal.SIGINT)  # "fast": connections are cut, not waited for

    def kill(self) -> None:
        """Its "immediate" end: a killed server leaves processes that hold the folder."""
        self._end(signal.SIGQUIT)

    def identity(self) -> dict[str, Any]:
        """PostgreSQL does not run as root."""
        if os.geteuid() != 0:
            return {}
        return {"user": "postgres", "group": "postgres", "extra_groups": []}

    def _answers_to_root(self) -> bool:
        try:
            self.root().close()
        except Exception:  # any driver's error means not yet
            return False
        return True

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, **self.identity()
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")


class MariaDbServer(DatabaseServer):
    """MariaDB, or what else calls itself mysqld."""

    package = "mariadb-server"

    def __init__(self, folder: Path, durable: bool = False) -> None:
        super().__init__(folder, durable)
        self.data = folder / "data"
        self.socket = folder / "socket"

    def prepare(self) -> None:
        command = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}"]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        if os.geteuid() == 0:
            command += ["--user=root"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db: {done.stdout}{done.stderr}")
        script = self.folder / "user.sql"
        script.write_text(
            f"CREATE DATABASE {DATABASE};\n"
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'%';\n"
            f"CREATE USER '{USER}'@'localhost' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON {DATABASE}.* TO '{USER}'@'localhost';\n"
        )
        self.start()

    def command(self) -> list[str]:
        command = [
            mariadb_program() or "mariadbd",
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.socket}",
            # At its start a server deletes what others have open in a folder they share.
            f"--tmpdir={self.folder}",
            f"--pid-file={self.folder / 'pid'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--default-time-zone=+09:00",  # what homerd writes must not depend on it
            # 2: a commit outlives the process, as with fsync=off, not the machine
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
        ]
        if os.geteuid() == 0:
            command.append("--user=root")
        if (self.folder / "user.sql").exists() and not (self.folder / "made").exists():
            (self.folder / "made").touch()
            command.append(f"--init-file={self.folder / 'user.sql'}")
        return command

    def connection(self) -> Any:
        return self._connect(USER, PASSWORD, DATABASE)

    def root(self, database: str = "") -> Any:
        return self._connect("root", "", database or None)

    def cut(self) -> None:
        self.rows_as_root(f"KILL CONNECTION USER '{USER}'@'%'")
        self.rows_as_root(f"KILL CONNECTION USER '{USER}'@'localhost'")

    def admit(self, yes: bool) -> None:
        lock = "UNLOCK" if yes else "LOCK"
        for host in ("%", "localhost"):
            self.rows_as_root(f"ALTER USER '{USER}'@'{host}' ACCOUNT {lock}")

    @contextlib.contextmanager
    def crowded(self) -> Iterator[None]:
        least = 10  # MariaDB takes no smaller number
        self.rows_as_root(f"SET GLOBAL max_connections = {least}")
        with contextlib.ExitStack() as crowd:
            self.admit(False)
            self.cut()
            for _ in range(least):
                crowd.callback(self.root().close)
            self.admit(True)  # the server keeps one connection more for root
            yield
        self.rows_as_root("SET GLOBAL max_connections = DEFAULT")

    def _connect(self, user: str, password: str, database: str | None) -> Any:
        import pymysql

        return pymysql.connect(
            unix_socket=str(self.socket),
            user=user,
            password=password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=2,
            init_command="SET time_zone = '+00:00'",
        )


def _is_held(pid: int) -> bool:
    """Whether all threads of a process are stopped, or it has ended."""
    try:
        stats = [(each / "stat").read_text() for each in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}").exists()
    return all(stat.rpartition(")")[2].split()[0] in "TZX" for stat in stats)


def _rows(connection: Any, query: str) -> list[tuple[Any, ...]]:
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, neither for TCP nor for UDP.

    The kernel gives none below 32768 to connections, so a server that was stopped finds its port
    again, and whoever tries to connect meanwhile does not get connected to himself.  Processes
    that share the tests take no port of each other's.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(20_000 + worker, 32_768, workers)
        with (
            contextlib.suppress(OSError),
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


def postgres_programs() -> Path:
    """Where initdb and postgres are; the newest version, an empty path when there is none."""
    found = shutil.which("postgres")
    if found:
        return Path(found).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    by_version = sorted(versions, key=lambda path: float(path.parts[-3]))
    return by_version[-1].parent if by_version else Path()


def mariadb_program() -> str | None:
    """Where the server is."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return shutil.which("mariadbd", path=path) or shutil.which("mysqld", path=path)


def missing(package: str, what: str = "server") -> NoReturn:
    """Skip the test, for want of a server; where CI=true it fails."""
    reason = f"no {what}: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def needed(program: str, package: str) -> str:
    """Where *program* is; without it the test is skipped, or fails where CI=true."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        missing(package, "agent")
    return found


@contextlib.contextmanager
def running(kind: type[DatabaseServer], durable: bool = False) -> Iterator[Any]:
    """A server that is gone afterwards, with its folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-"))
    server = kind(folder, durable)
    try:
        server.prepare()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.release()
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def database_on(server: PostgresServer | MariaDbServer, name: str) -> str:
    """An empty database of the test user's on a server; gives its address."""
    is_postgres = isinstance(server, PostgresServer)
    connection = server.root()
    for statement in (
        f"DROP DATABASE IF EXISTS {name}",
        f"CREATE DATABASE {name}{f' OWNER {USER}' if is_postgres else ''}",
        *([] if is_postgres else [f"GRANT ALL ON {name}.* TO '{USER}'@'%'"]),
    ):
        connection.cursor().execute(statement)
    connection.close()
    return server.url("postgres" if is_postgres else "mysql", database=name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL for the session; what tests leave in it is theirs to clear."""
    if postgres_programs() == Path():
        missing(PostgresServer.package)
    with running(PostgresServer) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDbServer]:
    """MariaDB for the session."""
    if mariadb_program() is None:
        missing(MariaDbServer.package)
    with running(MariaDbServer) as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> PostgresServer:
    """PostgreSQL with an empty database."""
    connection = postgres_server.connection()
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")
    connection.close()
    return postgres_server


@pytest.fixture
def mariadb(mariadb_server: MariaDbServer) -> MariaDbServer:
    """MariaDB with an empty database."""
    connection = mariadb_server.root()
    cursor = connection.cursor()
    cursor.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
    cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
    return mariadb_server
