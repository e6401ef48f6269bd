"""How long a task waited for its turn, by the rows of all tasks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from fluxwerk.server.state.task import TaskRecord

# How many tasks an engine on threads has at a time: one that each core renders, and one that is next there.
IN_HAND = 2 * (os.cpu_count() or 1)


class Turn(NamedTuple):
    """How one task had its turn.

    It `waited` and was `rendered` for so many seconds, `before_it` so many tasks began while it waited, and of what was
    rendered meanwhile the longest took `one_render`.
    """

    waited: float
    rendered: float
    before_it: int
    one_render: float


def turn_of(jobs: Sequence[TaskRecord], identity: str) -> Turn:
    """Return how one of the tasks had its turn, which has been rendered."""
    (own,) = (job for job in jobs if job.task.id == identity)
    rendered = [job for job in jobs if job is not own and job.began is not None and job.ready_at is not None]
    meanwhile = [job for job in rendered if job.began < own.began and own.accepted < job.ready_at]
    return Turn(
        waited=own.began - own.accepted,
        rendered=own.ready_at - own.began,
        before_it=sum(own.accepted < job.began for job in meanwhile),
        one_render=max((job.ready_at - job.began for job in meanwhile), default=0.0),
    )
