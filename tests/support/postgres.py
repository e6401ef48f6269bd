"""A PostgreSQL of one's own for as long as a test needs it: real, on a free port, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import psycopg.sql

# Where Debian, Red Hat, Homebrew and the source code put the programs.
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/pgsql/bin")
OLDEST = 15
QUICK = "-c fsync=off -c full_page_writes=off -c max_connections=300"


def find_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL of at least version 15 on this machine, if there is one."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += [folder for place in PLACES for folder in sorted(Path("/").glob(place.lstrip("/")), reverse=True)]
    for folder in folders:
        told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
        version = told.stdout.split()[2].partition(".")[0] if told.returncode == 0 else ""
        if version.isdigit() and int(version) >= OLDEST:
            return folder
    return None


@dataclass
class PostgresServer:
    """A server that can be stopped and started again, and that makes databases."""

    programs: Path
    folder: Path
    port: int
    options: str = QUICK

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._control("start", "-l", self.folder / "log", "-o", f"-p {self.port} -k {self.folder} {self.options}")

    def stop(self, how: str = "fast") -> None:
        self._control("stop", "-m", how)

    def make_database(self, name: str) -> str:
        """Make an empty database and return its address."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def initialise(self, trusted: str = "") -> None:
        """Make the files; beside loopback a `trusted` network may come in."""
        self._run("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "postgres", "-N", "--no-instructions")
        if trusted:
            self.options += " -c listen_addresses=0.0.0.0"
            with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {trusted} trust\n")

    def _control(self, *words: object) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-t", 60, *words)

    def _run(self, program: str, *words: object) -> None:
        command = [self.programs / program, *words]
        # The programs refuse to run as root.
        user = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid} if os.geteuid() == 0 else {}
        subprocess.run(
            list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **user
        )


@contextmanager
def postgres(options: str = QUICK, trusted: str = "") -> Iterator[PostgresServer]:
    """Run a server; its files are gone afterwards."""
    programs = find_programs()
    assert programs is not None, "find_programs comes first"
    folder = Path(tempfile.mkdtemp(prefix="fluxwerk-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = PostgresServer(programs, folder, port, options)
    try:
        server.initialise(trusted)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
