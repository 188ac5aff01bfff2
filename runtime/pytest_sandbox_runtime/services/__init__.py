"""PYTEST_DONT_REWRITE. Services that run: started in order, waited for, seeded, shared."""
