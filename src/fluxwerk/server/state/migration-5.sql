-- However many webhooks wait for their tasks, those that are due are found, and those that a process delivers.  SQLite
-- uses an index of part of a table only where its condition stands in the question as it is.
drop index webhook_due;
create index webhook_waiting on webhook (due) where state = 'waiting';
create index webhook_pending on webhook (owner) where state = 'pending';
