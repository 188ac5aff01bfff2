"""The plugin of tox: commands in a sandbox, and services beside them. PYTEST_DONT_REWRITE.

tox loads ``hooks``; nothing else of the package imports tox.
"""
