"""PYTEST_DONT_REWRITE. Building: from an image's declaration to layers in the store, each made once."""
