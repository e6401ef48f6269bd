-- Files of the storage that are to go from `due` on: those of rows that have gone, and those that are about to be
-- written, until a row names them.
create table removal (file text primary key, due double precision not null);
create index removal_due on removal (due);
