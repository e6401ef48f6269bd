-- Which engine made the image; null until there is one, and of an image that the release before this table finished.
alter table task add column engine text;
