"""PYTEST_DONT_REWRITE. From a declaration to a root file system: what to mount in which order, and its carrying out."""
