"""The SQL of the tasks' moves and questions, which SQLite and PostgreSQL understand alike."""

from __future__ import annotations

# Priorities have 32 bits; where a turn wraps, some tasks change places.
WRAP = 2**30
# A task whose ending may not be shown yet; until then an ending can be replaced.
OPEN = "(stage <> 'ended' or ready_at > :now)"
HELD = """
    select count(*) as busy, min(holds_until) as free from task
    where account = :account and pool = :pool and holds_until > :now and forget_at > :now
"""
COLUMNS = (
    "id",
    "account",
    "model",
    "pool",
    "folder",
    "stage",
    "priority",
    "job",
    "word",
    "accepted",
    "holds_until",
    "forget_at",
    "cost",
    "input_mp",
    "output_mp",
    "polling_url",
    "prompt",
    "words",
    "options",
    "inputs",
    "idempotency_key",
    "idempotency_digest",
    "urgency",
    "trace",
    "slots",
    "share",
    "turn",
    "keep",
)
# What is read of a task, by name: a release may add columns while the one before still works.
READ = (
    *COLUMNS,
    "number",
    "fence",
    "worker",
    "began",
    "ready_at",
    "settled",
    "details",
    "progress",
    "preview",
    "image",
    "engine",
)
# The columns of a webhook stand beside those of its task.
SELECT = f"""
    select {", ".join(f"task.{name}" for name in (*READ, "tags"))},
        webhook.url as hook_url, webhook.secret as hook_secret, webhook.state as hook_state,
        webhook.attempts as hook_attempts
    from task left join webhook on webhook.task = task.id
"""
FIND = f"{SELECT} where task.id = :id and forget_at > :now"
FIND_ALL = f"{SELECT} where task.id {{among}} and forget_at > :now"
FIND_REPEATED = f"{SELECT} where task.account = :account and idempotency_key = :key and forget_at > :now"
# Of two submits with one key the first counts.
ON_REPEATED = "on conflict (account, idempotency_key) where idempotency_key is not null do nothing"
INSERT = f"""
    insert into task ({", ".join(COLUMNS)}) values ({", ".join(f":{name}" for name in COLUMNS)}) {ON_REPEATED}
"""
# A turn that an account was given by a statement of the same transaction, `back` from where its next one is.
TURN = "(select turn - :back from account where id = :account)"
PRIORITY = f"(select - ((turn - :back) % {WRAP}) from account where id = :account)"
_COMPUTED = {"turn": TURN, "priority": PRIORITY, "job": "{job}"}
INSERT_TURN = f"""
    insert into task ({", ".join(COLUMNS)}) values ({", ".join(_COMPUTED.get(name, f":{name}") for name in COLUMNS)})
    {ON_REPEATED} returning id
"""
CLAIM = """
    update task set stage = 'running', fence = fence + 1, worker = :worker, engine = null where number = (
        select number from task where stage = 'queued' order by priority desc, number limit 1
    ) returning id
"""
BEGIN = """
    update task set stage = 'running', fence = fence + 1, worker = :worker, engine = null
    where id = :id and stage in ('queued', 'running') returning id
"""
ADVANCE = """
    update task set progress = :progress, preview = :preview, began = coalesce(began, :now)
    where id = :id and fence = :fence and stage = 'running'
"""
# The image of a task is made, and another one may have its slot while it is fetched.
VACATE = """
    update task set holds_until = :now where id = :id and fence = :fence and stage = 'running' and holds_until > :now
"""
FINISH = """
    update task set stage = 'ended', word = 'Ready', settled = cost, ready_at = :at,
        holds_until = case when holds_until > :now then :at else holds_until end,
        forget_at = :at + coalesce(keep, :keep), image = :image, image_bytes = :image_bytes,
        engine = coalesce(engine, :engine), preview = null, worker = null
    where id = :id and fence = :fence and stage in ('waiting', 'queued', 'running')
"""
FINISHED = "select id from task where id = :id and stage = 'ended' and image = :image"
LOCK = (
    f"update task set fence = fence + 1 where id = :id and {OPEN} {{own}} returning cost, settled, image, stage, inputs"
)
END = """
    update task set stage = 'ended', word = :word, details = :details, settled = :settled, ready_at = :at,
        holds_until = :at, forget_at = :at + coalesce(keep, :keep), image = null, image_bytes = null, preview = null,
        worker = null
    where id = :id
"""
STICK = "update task set stage = 'stuck', forget_at = :forget_at where id = :id and stage <> 'ended'"
# Whether another service was asked for the task, and has not said that it took nothing.
IS_UPSTREAM = "select 1 as asked from upstream where task = :id"
REQUEUE = """
    update task set stage = 'queued', word = 'Pending', ready_at = null, holds_until = :never, forget_at = :never,
        settled = null, image = null, image_bytes = null, began = null, worker = null
    where id = :id
"""
COUNT = """
    select case when ready_at <= :now then word else 'Pending' end as status, count(*) as number
    from task where forget_at > :now group by 1
"""
BUSY = """
    select 1 as busy from task
    where (holds_until > :now or stage in ('waiting', 'queued', 'running')) and forget_at > :now
    union all
    select 1 from task where word = 'Ready' and delivered = 0 and ready_at > :since and ready_at <= :now
    limit 1
"""
# What names the files of a task.
FILES = "id, folder, fence, image, inputs"
FORGOTTEN = f"select {FILES} from task where forget_at <= :now order by forget_at limit :most"
DISCARDED = f"select {FILES} from task where id = :id"
DROPPABLE = f"""
    select {FILES} from task where stage = 'ended' and ready_at <= :now
    order by delivered desc, ready_at limit :most
"""
# What is known upstream of a task that goes; one that has not ended there still holds its slot.
FORGET_UPSTREAM = "delete from upstream where task = :id and doubt is null"
DISCARD_UPSTREAM = f"{FORGET_UPSTREAM} and ended is not null"
ADD_WEBHOOK = """
    insert into webhook (task, account, url, secret, state, attempts)
    values (:task, :account, :url, :secret, 'waiting', '[]')
"""
WEBHOOK_DUE = "update webhook set due = :at where task = :id"
TAKE_WEBHOOK = "update webhook set state = 'pending', owner = :owner where task = :id and state = 'waiting'"
NOTE_WEBHOOK = """
    update webhook set state = :state, attempts = :attempts where task = :id and owner = :owner
"""
RETURN_WEBHOOK = """
    update webhook set state = 'waiting', owner = null where task = :id and state = 'pending' and owner = :owner
"""
TAKE_WEBHOOKS = """
    update webhook set state = 'pending', owner = :owner where task in (
        select task from webhook where state = 'waiting' and due <= :now order by due limit :most {skip_locked}
    ) returning task
"""
