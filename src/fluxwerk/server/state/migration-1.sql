-- Times are seconds since 1970 on the clock of who wrote them, credits are whole millionths, flags are 0 or 1.
-- {number} counts rows in the order of their insertion; everything else means the same to SQLite and PostgreSQL.

-- What every process of one state must agree on: the key that signs links, and the version of these tables.
create table fact (name text primary key, value bytea not null);

create table account (id text primary key, spent bigint not null);

-- One accepted task.  `stage` is queued, running, stuck or ended; `word` is the status that ended it.
-- `holds_until` is when its slot is free again, and `forget_at` when the row goes; both lie far ahead until it has ended.
-- `fence` rises whenever a worker takes it up and when it ends, so that a worker that lost it changes nothing.
create table task (
    number {number},
    id text not null unique,
    account text not null,
    model text not null,
    pool text not null,
    folder text not null unique,
    stage text not null,
    word text not null,
    priority integer not null default 0,
    fence integer not null default 0,
    worker text,
    job bigint,
    accepted double precision not null,
    began double precision,
    ready_at double precision,
    holds_until double precision not null,
    forget_at double precision not null,
    cost bigint,
    settled bigint,
    input_mp text,
    output_mp text,
    polling_url text not null,
    prompt text not null,
    words text not null,
    options text not null,
    inputs text not null,
    details text,
    progress double precision,
    preview bytea,
    image text,
    image_bytes bigint,
    delivered integer not null default 0,
    idempotency_key text,
    idempotency_digest text,
    trace text
);
create index task_slot on task (account, pool, holds_until);
create index task_account on task (account, number);
create unique index task_idempotency on task (account, idempotency_key) where idempotency_key is not null;
create index task_forget on task (forget_at);
create index task_queue on task (priority desc, number) where stage = 'queued';
create index task_worker on task (worker) where stage = 'running';
create index task_open on task (number) where stage <> 'ended';

-- The webhook of one task; `due` is when the next attempt may leave, `owner` the process that delivers it.
create table webhook (
    task text primary key references task (id) on delete cascade,
    account text not null,
    url text not null,
    secret text,
    state text not null,
    attempts text not null,
    due double precision,
    owner text
);
create index webhook_due on webhook (due) where state in ('waiting', 'pending');

-- Every process at work on this state; one whose `beat` is old is gone.
create table process (
    id text primary key,
    kind text not null,
    engine text,
    models text,
    beat double precision not null
);

-- Rows that could not be read, kept for repair.
create table damaged (number bigint, id text, account text, body text, reason text);

-- What a gateway knows of a task at the service upstream, from the intent on; it outlives the task where it is in doubt.
-- A row without `ended` holds a slot of its pool. `id` is the service's, `settled` says how a person settled a doubt.
create table upstream (
    task text primary key,
    account text not null,
    model text not null,
    pool text not null,
    intended double precision not null,
    id text,
    url text,
    cost bigint,
    submitted double precision,
    ended double precision,
    doubt text,
    settled text
);
create index upstream_slot on upstream (pool, intended) where ended is null;
create index upstream_doubt on upstream (intended) where doubt is not null and settled is null;

-- The slots of one pool, which all machines share; its row is locked while one is granted.
create table pool (name text primary key, granted bigint not null default 0);

-- Which task answered a request with a seed, by the digest of what was asked for.
create table answer (digest text primary key, task text not null references task (id) on delete cascade);
create index answer_task on answer (task);
