"""The machines, as fixtures: each test has its own, but for those of the whole shop, which a module shares."""

from importlib import util
from pathlib import Path

from pytest_sandbox import sandbox_service

spec = util.spec_from_file_location("shop_machines", Path(__file__).parent / "shop.py")
machines = util.module_from_spec(spec)
spec.loader.exec_module(machines)

database = sandbox_service(machines.database)
cache = sandbox_service(machines.cache)
shop = sandbox_service(machines.web, scope="module")
