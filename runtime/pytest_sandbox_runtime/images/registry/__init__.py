"""PYTEST_DONT_REWRITE. Registries: what images are pulled from and pushed to, by the OCI's distribution-spec."""
