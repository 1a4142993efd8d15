"""What is asked of Ray itself: that it is there, that it is the version whose functions are replaced, and how."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ray_application import IS_INSTALLED

needs_ray = pytest.mark.skipif(not IS_INSTALLED, reason="ray is not installed: pip install 'hilum[scale]'")
CHANGED = """
from ray.serve._private import default_impl
from inference.errors import SettingsRefused
from inference.scale.confinement import check_ray
check_ray()
default_impl.add_grpc_address = lambda server, address, credentials: None
try:
    check_ray()
except SettingsRefused as error:
    print(error)
"""
CONFINED = """
import asyncio, json, os, sys
import grpc
from inference.scale.confinement import Doors, confine
os.environ |= Doors((f"unix:{sys.argv[1]}",)).to_environment()
confine()
from ray._common import tls_utils
from ray.serve._private import default_impl

class Server:
    def __init__(self):
        self.taken = []
    def add_insecure_port(self, address):
        self.taken.append(address)
        return 1

between, public = Server(), Server()
tls_utils.add_port_to_grpc_server(between, "[::]:0")
default_impl.add_grpc_address(public, "[::]:9000")
print(json.dumps([between.taken, public.taken]))
"""


def python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_ray
def test_another_ray_is_refused_where_a_function_that_is_replaced_has_changed() -> None:
    assert python(CHANGED) == (
        "ray: <lambda> takes ['server', 'address', 'credentials'], expected ['grpc_server', 'server_address']. "
        "Remedy: install the version of Ray that the extra 'scale' names"
    )


@needs_ray
def test_rays_servers_listen_where_they_are_told_to(tmp_path: Path) -> None:
    assert json.loads(python(CONFINED, f"{tmp_path}/s")) == [["127.0.0.1:0"], [f"unix:{tmp_path}/s"]]


def test_without_ray_the_remedy_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['ray'] = None; from inference.scale.__main__ import run; print(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--models", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "2\n"
    assert done.stderr == "ray is not installed. Remedy: pip install 'hilum[scale]'\n"


STUBBORN = """
import subprocess
from inference.scale.descendants import adopt_orphans, descendants, end_descendants
adopt_orphans()
subprocess.run(["sh", "-c", "trap '' TERM; sleep 600 & exit"], check=True)
print(len(descendants()), end_descendants(0.2), len(descendants()), end_descendants(0.2))
"""


def test_processes_whose_parent_ended_are_found_and_ended() -> None:
    assert python(STUBBORN) == "1 1 0 0"
