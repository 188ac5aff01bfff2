"""PYTEST_DONT_REWRITE. Networks between sandboxes: addresses, bridges, names, ports. The supervisor's: stdlib only."""
