"""PYTEST_DONT_REWRITE. The one time that is written to layers and images, and that steps see as SOURCE_DATE_EPOCH.

The caller's variable of that name is not heeded: layers would differ that have one key, from machine to machine.
"""

from __future__ import annotations

# 2024-01-01: late enough for zip, which knows no year before 1980, and for anything that is installed with a date.
SOURCE_DATE_EPOCH = 1_704_067_200
# The same, as the image-spec writes it: when images and their steps were made.
CREATED = "2024-01-01T00:00:00Z"
