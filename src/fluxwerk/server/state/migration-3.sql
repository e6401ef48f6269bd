-- Files of the storage that are to go from `due` on: those of rows that have gone, and those that are about to be
-- written, until a row names them.
create table removal (file text primary key, due double precision not null);
create index removal_due on removal (due);
-- Which engine made the image; null until there is one, and of an image that the release before this table finished.
alter table task add column engine text;
