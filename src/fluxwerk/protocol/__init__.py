"""The protocol of the service as pure functions and generators, without clock, socket, disk or HTTP library."""
