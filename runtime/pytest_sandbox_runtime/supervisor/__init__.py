"""PYTEST_DONT_REWRITE. The fork server and init: stdlib only, and little of it, as each sandbox is a fork of this."""
