"""A real PostgreSQL for the tests: a server of the session's own, on a socket in its own folder."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

PASSWORD = "canary-of-the-database"
SERVER = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def postgres():
    """The URL of a throw-away server that listens on a socket in its own folder, and nowhere else."""
    if not SERVER:
        pytest.skip("PostgreSQL is not here: `apt-get install postgresql`")
    pytest.importorskip("psycopg", reason="`pip install 'keepfit[postgres]'`")
    home = Path(tempfile.mkdtemp(prefix="kfpg-"))
    root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    (home / "password").write_text(PASSWORD)
    if root:
        owner = pwd.getpwnam("postgres")
        for path in (home, home / "password"):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def run(program, *arguments):
        command = [
            *(["runuser", "-u", "postgres", "--"] if root else []),
            str(SERVER[-1] / program),
            "-D",
            str(home / "data"),
            *arguments,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home)

    run(
        "initdb",
        "-U",
        "keepfit",
        "-A",
        "scram-sha-256",
        f"--pwfile={home / 'password'}",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    )
    try:
        run(
            "pg_ctl",
            "-w",
            "-l",
            str(home / "log"),
            "-o",
            f"-c listen_addresses='' -k {home} -c fsync=off -c timezone=America/New_York",
            "start",
        )
        yield f"postgresql+psycopg://keepfit:{PASSWORD}@/postgres?host={home}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home)


@pytest.fixture
def database(postgres):
    """The URL of an empty database of the test's own."""
    name, server = (
        f"t{uuid.uuid4().hex}",
        sa.create_engine(postgres, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"),
    )
    with server.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    yield postgres.replace("/postgres?", f"/{name}?")
    with server.connect() as connection:
        connection.execute(sa.text(f"drop database {name} with (force)"))


HOLDERS = sa.table("pg_stat_activity", *map(sa.column, ("pid", "datname", "state", "state_change")))
_LOCKS = sa.table("pg_locks", *map(sa.column, ("pid", "locktype")))
HOLDS = (
    HOLDERS.c.datname == sa.func.current_database(),
    HOLDERS.c.pid.in_(sa.select(_LOCKS.c.pid).where(_LOCKS.c.locktype == "advisory")),
)


def cut(engine: sa.Engine) -> None:
    """The server ends every connection of this database that holds a lock, as its restart does; they are gone when this returns."""
    with engine.connect() as connection:
        ended = connection.execute(sa.select(sa.func.pg_terminate_backend(HOLDERS.c.pid, 10_000)).where(*HOLDS)).all()
        assert ended == [(True,)] * len(ended) != []
