-- Whom keys belong to, and what each may use; null is the server's own limit.
create table application (
    account text primary key,
    name text not null,
    budget bigint not null,
    period text not null,
    slots integer,
    models text,
    priority integer not null,
    rate integer,
    largest_body bigint,
    keep double precision,
    created double precision not null,
    revoked double precision
);
create unique index application_name on application (name) where revoked is null;

-- A key opens its application until `ends`.
create table api_key (
    digest text primary key,
    account text not null references application (account),
    shown text not null,
    created double precision not null,
    ends double precision
);
create index api_key_account on api_key (account);

-- What each account has spent, by the day in UTC on which a task was accepted, and how many tasks that were.
create table spend (
    account text not null,
    day text not null,
    model text not null,
    tasks bigint not null,
    credits bigint not null,
    primary key (account, day, model)
);

-- `reached` is the moment that the submits so far have used up, by the account's rate.
alter table account add column reached double precision not null default 0;
-- How many of its tasks wait for a slot, and how far its tasks have moved it back in the order of all accounts.
alter table account add column waiting integer not null default 0;
alter table account add column turn bigint not null default 0;
create index account_waiting on account (id) where waiting > 0;
create index account_turn on account (turn);

-- A task beyond its account's slots has the stage `waiting`, and its `holds_until` is 0 until it is queued.
-- The slots of the task's pool and its share of the workers, as its account had them; `keep` is in seconds.
alter table task add column slots integer not null default 0;
alter table task add column share integer not null default 1;
alter table task add column turn bigint not null default 0;
alter table task add column urgency integer not null default 0;
alter table task add column keep double precision;
-- What its owner calls it, each word between bars.
alter table task add column tags text not null default '';
create index task_waiting on task (account, pool, urgency desc, number) where stage = 'waiting';
create index task_turn on task (turn) where stage = 'queued';
create index task_started on task (turn) where stage = 'running' or word = 'Ready';
