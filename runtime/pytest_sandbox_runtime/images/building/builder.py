"""PYTEST_DONT_REWRITE. The builder: layer after layer, each looked for in the cache first, and made once by whoever is first."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_sandbox_runtime.errors import BuildError, ImageError, SandboxError
from pytest_sandbox_runtime.images.building.bases import base_of
from pytest_sandbox_runtime.images.building.cache import Cache
from pytest_sandbox_runtime.images.building.chain import Chain
from pytest_sandbox_runtime.images.building.inputs import Inputs
from pytest_sandbox_runtime.images.building.running import ran
from pytest_sandbox_runtime.images.building.staged import stage
from pytest_sandbox_runtime.images.building.staging import Staging
from pytest_sandbox_runtime.images.config import steps
from pytest_sandbox_runtime.images.images import BuiltImage
from pytest_sandbox_runtime.images.layer import write_layer
from pytest_sandbox_runtime.images.manifest import OCI_LAYER, Descriptor
from pytest_sandbox_runtime.images.reference import Reference
from pytest_sandbox_runtime.specs import SOURCE_DATE_EPOCH, Image, Unpacked
from pytest_sandbox_runtime.specs.spelling import spelled_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime.engine import Engine
    from pytest_sandbox_runtime.images.config import Step
