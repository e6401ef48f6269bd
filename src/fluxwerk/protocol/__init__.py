"""The conversation with the service as pure functions and generators: nothing here knows a clock or a socket."""
