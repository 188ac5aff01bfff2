"""PYTEST_DONT_REWRITE. The kernel's calls that the standard library lacks: one wrapper each, and no policy.

The supervisor and init import this in processes that start in milliseconds, so it imports neither typing nor
dataclasses.
"""
