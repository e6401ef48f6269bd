-- The ledger, version 1.  Every amount is in millionths of a credit (1 credit = 1 US cent), so that sums are exact;
-- every moment is in seconds since 1970 on the database's clock.  Look inside at any time:
--     sqlite3 prompts.ledger 'select * from overview'

-- What this file is and what was agreed on: schema, cap (of the budget), base (where its tasks live).
create table settings (
    name  text primary key,             -- which agreement
    value text not null                 -- what was agreed on
);

-- One row for each manifest that was planned.
create table sheets (
    id      integer primary key,        -- counts up
    name    text not null,              -- what the manifest is called, for people
    sha256  text not null,              -- its content, so that planning it twice adds nothing
    touched real not null,              -- when its last chunk was written; an old one that never opened is dead
    opened  real                        -- when its last row was checked; its jobs are not touched before
);
create index sheets_by_content on sheets (sha256);

-- One row for each distinct content of an input image; the bytes stay where they are.
create table inputs (
    sha256 text primary key,            -- of the whole file, as hexadecimal digits
    path   text not null,               -- the absolute path at which the content was found first
    width  integer not null,            -- in pixels
    height integer not null             -- in pixels
);

-- Who shares which slots.
create table pools (
    name  text primary key,             -- as the catalogue calls it
    slots integer not null              -- tasks in flight at most, over all processes
);

-- One row for each process that is at work; it is dead once its lease has run out.
create table workers (
    id      text primary key,           -- host, process id and chance
    started real not null,              -- when it enrolled
    lease   real not null,              -- how many seconds each heartbeat is good for
    expires real not null               -- when the lease runs out unless it is renewed
);

-- One row for each image that is wanted.
create table jobs (
    id           integer primary key,   -- the job's number, also for its file name
    sheet        integer not null references sheets (id),  -- the manifest that asked for it
    line         integer not null,      -- of the manifest, from 1
    item         integer not null,      -- which of the line's images, from 1
    model        text not null,         -- a row of the catalogue
    pool         text not null references pools (name),    -- whose slots its task takes
    request      text not null,         -- JSON: the fields to send; a local image is written sha256:...
    request_hash text not null,         -- SHA-256 of the canonical request, to find duplicates
    output       text,                  -- the file name that the manifest asks for
    tag          text,                  -- the manifest's own word for adding up costs
    estimate     integer,               -- what it should cost; null if the price is not public
    stage        text not null,         -- planned, submitting, submitted, ready, saved, failed, in doubt
    moved        real not null,         -- when the stage last changed
    worker       text,                  -- who carries it now; null if nobody
    fence        integer not null,      -- grows with each move and each change of worker, so that a late one writes nothing
    attempt      integer not null,      -- how many submits were begun
    token        text,                  -- unguessable, of this attempt: a webhook that knows it is about this job
    base         text,                  -- the service to which the submit went
    submitted    real,                  -- when its task was accepted
    task         text,                  -- the service's id
    polling_url  text,                  -- where the service wants to be asked about it
    cost         integer,               -- as the submit's answer named it
    settled      integer,               -- as the final status named it
    earlier      integer not null,      -- what earlier attempts of this job have cost
    url          text,                  -- where the image lies; a credential, so it is blanked once saved
    expires      real,                  -- when that link dies
    seed         integer,               -- as the service told it
    engine       text,                  -- who painted, if a fluxwerk server told it
    path         text,                  -- where the image was saved
    sha256       text,                  -- of the file as it was saved
    kind         text,                  -- how it failed: the name of the error; from version 2 a word of its own
    reason       text                   -- the same in words, or why it is in doubt
);
create index jobs_by_stage on jobs (stage, pool, id);
create index jobs_by_request on jobs (request_hash);
create unique index jobs_by_output on jobs (output) where output is not null;

-- The story of each job: every move that was made.
create table moves (
    id     integer primary key,         -- counts up
    job    integer not null references jobs (id),  -- which job moved
    at     real not null,               -- when
    before text not null,               -- the stage it left
    after  text not null,               -- the stage it reached
    worker text,                        -- who moved it; null for a person or a webhook
    note   text                         -- why, in words
);
create index moves_by_job on moves (job);

-- The sums over jobs, kept in the same transaction as each move, so that asking for them costs nothing.
-- booked is settled, else cost, else estimate, else nothing.
create table tally (
    pool    text not null,              -- as in jobs
    stage   text not null,              -- as in jobs
    jobs    integer not null,           -- how many
    booked  integer not null,           -- what they are booked with
    earlier integer not null,           -- what their earlier attempts have cost
    primary key (pool, stage)
);

-- The account's balance as the service told it, beside what the ledger said at that moment.
create table readings (
    at      real not null,              -- when it was told
    balance integer not null,           -- what the account has left
    spent   integer not null            -- booked by all jobs that had left planned, and by earlier attempts
);

-- For people with a shell: amounts in credits.
create view overview as
select stage, sum(jobs) as jobs, sum(booked + earlier) / 1000000.0 as credits
from tally group by stage having sum(jobs) > 0;
