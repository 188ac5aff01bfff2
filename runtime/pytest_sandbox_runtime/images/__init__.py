"""PYTEST_DONT_REWRITE. What sandboxes start from: archives turned into root file systems, each kept once."""
