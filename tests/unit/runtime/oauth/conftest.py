"""A daemon that serves OAuth at a port, and a client that speaks to it."""

from __future__ import annotations

import os

import pytest

from fakes.machine import Machine
from fakes.oauth import SETTINGS, FakeClient, free_port


@pytest.fixture
def served(machine: Machine) -> tuple[Machine, FakeClient]:
    port = free_port()
    os.makedirs(machine.paths.config, exist_ok=True)
    with open(machine.paths.config + "/oauth.toml", "w") as f:
        f.write(SETTINGS % port)
    machine.kill(15)
    machine.start()
    return machine, FakeClient(port)
