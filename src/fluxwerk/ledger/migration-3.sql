-- The ledger, version 3: what settles a doubt.
alter table jobs add column began real;                          -- when this attempt's submit left with its key
alter table readings add column known integer;                   -- what was charged for certain at that moment
alter table readings add column quiet integer not null default 0; -- 1 if no submit was under way and none in flight

-- What the balance said about jobs in doubt, with the arithmetic.
create table settlements (
    id         integer primary key,     -- counts up
    at         real not null,           -- when
    since      real not null,           -- the reading that it starts from
    difference integer not null,        -- what the account lost beyond all that was known to be charged
    jobs       text not null,           -- JSON: the numbers of the jobs that were in doubt
    verdict    text not null,           -- settled, ambiguous or unexplained
    text       text not null,           -- the arithmetic in words
    open       text not null            -- JSON: which of them are still in doubt and may be decided by what comes
);
