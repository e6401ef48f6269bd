"""Why a job failed: a word that stays in the ledger, whatever the exception is called."""

from __future__ import annotations

from enum import StrEnum

from fluxwerk import errors


class FailureKind(StrEnum):
    """Why a job failed, as the column `kind` keeps it."""

    TASK_FAILED = "task_failed"  # the service ended the task without an image
    MODERATED = "moderated"  # moderation stopped the request or the image
    TASK_NOT_FOUND = "task_not_found"  # the service does not know the task
    TIMED_OUT = "timed_out"  # the task did not end in time
    LINK_EXPIRED = "link_expired"  # the delivery link died, and so did a fresh one
    UNTRUSTED_URL = "untrusted_url"  # the service named a URL that must not be followed
    REJECTED = "rejected"  # the service refused the submit, a poll or a download
    INVALID = "invalid"  # a check on this machine refused it
    IN_DOUBT = "in_doubt"  # a person settled a doubt: charged, and no image
    OTHER = "other"

    @classmethod
    def of(cls, error: errors.FluxwerkError) -> FailureKind:
        """Classify an error."""
        return next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), cls.OTHER)


# The first class that fits decides.
_KINDS: tuple[tuple[type[errors.FluxwerkError], FailureKind], ...] = (
    (errors.ModerationError, FailureKind.MODERATED),
    (errors.TaskNotFoundError, FailureKind.TASK_NOT_FOUND),
    (errors.TaskFailedError, FailureKind.TASK_FAILED),
    (errors.TaskTimeoutError, FailureKind.TIMED_OUT),
    (errors.LinkExpiredError, FailureKind.LINK_EXPIRED),
    (errors.UntrustedURLError, FailureKind.UNTRUSTED_URL),
    (errors.APIStatusError, FailureKind.REJECTED),
    (errors.InvalidUsageError, FailureKind.INVALID),
    (errors.InDoubtError, FailureKind.IN_DOUBT),
)
# Such a task is known to have ended without an image, so a retry buys a new one; any other may still have one.
WITHOUT_IMAGE = frozenset({FailureKind.TASK_FAILED, FailureKind.MODERATED, FailureKind.TASK_NOT_FOUND})
