-- The ledger, version 2.  The column `kind` of jobs held the name of a Python class, which changed with the code;
-- now it holds a word of its own.
update jobs set kind = case
    when kind in ('Failed', 'TaskFailedError') then 'task_failed'
    when kind in ('Moderated', 'ModerationError') then 'moderated'
    when kind in ('Forgotten', 'TaskNotFoundError') then 'task_not_found'
    when kind in ('TimedOut', 'TaskTimeoutError') then 'timed_out'
    when kind in ('Expired', 'LinkExpiredError') then 'link_expired'
    when kind in ('Untrusted', 'UntrustedURLError') then 'untrusted_url'
    when kind in ('Misused', 'InvalidUsageError', 'UnknownModel', 'UnknownModelError') then 'invalid'
    when kind in ('InDoubt', 'InDoubtError') then 'in_doubt'
    when kind in ('Refused', 'NotAllowed', 'OutOfCredits', 'Invalid', 'Busy', 'APIStatusError', 'AuthenticationError',
                  'InsufficientCreditsError', 'InvalidRequestError', 'RateLimitError') then 'rejected'
    else 'other'
end where kind is not null;
