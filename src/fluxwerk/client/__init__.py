"""The client: `Client` and `AsyncClient`, and what only they use."""
