"""Conformance: some sixty questions to any server of the API, and how its answers differ from those of ours."""
