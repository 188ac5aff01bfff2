"""The engine: a container runtime for tests, usable without pytest."""
