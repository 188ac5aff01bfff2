"""Measures pytest-sandbox beside bwrap, runc and Docker: ``python -m benchmarks``."""
