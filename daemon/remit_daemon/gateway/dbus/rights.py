"""What the policy in force says of one bus: calls, emissions, and which names an agent may know of.

Everything here is remembered until ``clear``, which whoever owns this calls when a new snapshot is in force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_policy.model import ALLOW, ASK, DENY, Decision
from remit_policy.resources import bus_resource

if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.gateway.authority import Authority

MAX_REMEMBERED = 4096  # names or resources; beyond, all are forgotten and asked for again

# What an agent may know of a name: that it is there; that it is there once a person said so; nothing.
SHOWN, ASKED, HIDDEN = "shown", "asked", "hidden"


class Rights:
    """One session's rights on one bus; ``system`` says which. Pure: nothing is counted, asked or recorded."""

    def __init__(self, authority: Authority, system: bool) -> None:
        self._authority = authority
        self.system = system
        self._shown: dict[str, str] = {}
        self._alike: dict[str, bool] = {}

    def clear(self) -> None:
        """Forget what an older snapshot said."""
        self._shown.clear()
        self._alike.clear()

    def decide(self, op: str, resource: str) -> Decision:
        """Return the decision for ``resource``."""
        return self._authority.decide(op, resource)

    def name(self, op: str, name: str) -> Decision:
        """Return the decision for ``op`` (see, own) on ``name``."""
        return self._authority.decide(op, bus_resource(self.system, name))

    def shown(self, name: str) -> str:
        """Return whether ``name``, well-known or unique, may be known: SHOWN, ASKED or HIDDEN.

        Who may call some of its members may know that it is there.
        """
        found = self._shown.get(name)
        if found is None:
            verdict = self.name("see", name).verdict
            if verdict == ALLOW:
                found = SHOWN
            elif verdict == ASK:
                found = SHOWN if self.may_call(name) else ASKED
            else:
                found = HIDDEN
            if len(self._shown) >= MAX_REMEMBERED:
                self._shown.clear()
            self._shown[name] = found
        return found

    def may_call(self, name: str) -> bool:
        """Say whether some call to ``name`` is, or could be, allowed by a rule."""
        try:
            return self._authority.engine.may_call(self.system, name)
        except Exception:  # a fault shows nothing
            return False

    def every_call(self, name: str) -> bool:
        """Say whether every call to ``name`` is allowed, whatever its interface."""
        try:
            return self._authority.engine.calls_alike(self.system, name) == ALLOW
        except Exception:
            return False

    def call(
        self, name: str, member: str, path: str, arguments: Callable[[], tuple[str, ...]]
    ) -> tuple[Decision, str, bool]:
        """Return the decision for a call, its resource, and whether all such calls get it, whatever their arguments.

        The arguments are read, and shown, where rules speak of them or a person is to be asked.
        """
        resource = bus_resource(self.system, name, member, path)
        alike = self._alike.get(resource)
        if alike is None:
            try:
                alike = self._authority.engine.arguments_alike(resource) in (ALLOW, DENY)
            except Exception:
                alike = False
            if len(self._alike) >= MAX_REMEMBERED:
                self._alike.clear()
            self._alike[resource] = alike
        if not alike:
            resource = bus_resource(self.system, name, member, path, arguments())
        return self._authority.decide("call", resource), resource, alike
