-- On which account at the service a submit left, as a digest of its key and address.  The release before leaves it
-- empty, and counts the slots of all accounts together; its own rows count for every account.
alter table upstream add column service text not null default '';
