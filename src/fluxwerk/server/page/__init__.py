"""The studio: a page for people who do not program, served beside the API and speaking only to it."""
