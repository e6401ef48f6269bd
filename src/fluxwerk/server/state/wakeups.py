"""What wakes the waiters of a whole fleet: a webhook reaches one process, and another one may wait for its task.

A notification travels as a notice of PostgreSQL.  It carries no news, so one that is lost costs only time.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fluxwerk.client.wakeup import Wakeup
from fluxwerk.drive import Listen
from fluxwerk.errors import StorageError
from fluxwerk.ledger.postgresql import PostgresDatabase, with_network

CHANNEL = "fluxwerk_upstream"
SEND = f"select pg_notify('{CHANNEL}', :task)"
# Seconds between two looks whether to end, and until a connection that was lost is opened again.
LOOK_SECONDS, REOPEN_SECONDS = 0.5, 1.0

log = logging.getLogger("fluxwerk.server")


class FleetWakeup(Wakeup):
    """Wakes what waits for a task in any process of the database; a process listens from its first wait on."""

    def __init__(self, database: PostgresDatabase, reopen: float = REOPEN_SECONDS) -> None:
        super().__init__()
        self._database = database
        self._reopen = reopen
        # One thread, since whoever receives a webhook may not wait for the database.
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="wakeup")
        self._listener: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = threading.Event()
        # Set for as long as notices arrive here.
        self.is_listening = threading.Event()

    def notify(self, task_id: str) -> None:
        """End every wait for this task, here at once and in other processes a moment later."""
        super().notify(task_id)
        self._sender.submit(self._send, task_id)

    def listen(self, task_id: str) -> Listen:
        """Return what ends the wait of a clock when this task is notified, in whichever process."""
        with self._starting:
            if self._listener is None:
                self._listener = threading.Thread(target=self._run, name="wakeups", daemon=True)
                self._listener.start()
        return super().listen(task_id)

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        self._sender.shutdown(cancel_futures=True)
        if self._listener is not None:
            self._listener.join()

    def _send(self, task_id: str) -> None:
        # What cannot be sent is found by a poll.
        with suppress(StorageError):
            self._database.ask(SEND, task=task_id)

    def _run(self) -> None:
        import psycopg  # noqa: PLC0415  (an extra)

        while not self._closed.is_set():
            try:
                with psycopg.connect(with_network(self._database.url), autocommit=True) as connection:
                    self._hear(connection)
            except psycopg.Error as error:
                self.is_listening.clear()
                log.info("Webhooks that other processes receive are not heard of (%s).", type(error).__name__)
                self._closed.wait(self._reopen)

    def _hear(self, connection: Any) -> None:
        connection.execute(f"listen {CHANNEL}")
        self.is_listening.set()
        while not self._closed.is_set():
            for notice in connection.notifies(timeout=LOOK_SECONDS):
                super().notify(notice.payload)
