"""The service on your own machine: the same HTTP API, with an engine of your choice behind it."""
