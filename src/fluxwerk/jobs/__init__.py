"""Paid work that survives anything: a ledger of jobs, the slots they share, and the worker that carries them."""
