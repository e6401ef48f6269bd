"""What a server's accounts have come to, for tests that hold the accounts in their hands."""

from __future__ import annotations

import time

from fluxwerk.server.state.accounts import Accounts


def accepted(accounts: Accounts) -> set[str]:
    """Return the ids of all tasks that were accepted and are still kept."""
    return {task.task.id for task in accounts.tasks.all(time.time())}
