"""Faults on purpose: rules that say when the server misbehaves, and what then becomes of an answer."""
