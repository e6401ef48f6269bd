"""The APIs of other services in front of the handlers, so that programs made for those work with this server.

A door translates: it asks this server's own API in its client's name, and has no prices, limits or models of its own.
"""
