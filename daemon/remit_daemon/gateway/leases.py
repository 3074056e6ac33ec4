"""What the gateway's acts count against the limits of the agent, paid from the leases that remitd gives.

An agent without limits has no purse: then nothing costs anything, and nothing is said to remitd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit_policy.limits import Limit, Purse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from remit_policy.limits import Costs
    from remit_policy.model import Rule


class Leases:
    """The gateway's part of the limits in force. ``say`` takes the frames for remitd."""

    def __init__(self, limits: Sequence[Limit], say: Callable[[dict[str, Any]], None]) -> None:
        self.purse = Purse(limits) if limits else None
        self._say = say

    def costs(self, op: str, rule: Rule | None) -> Costs:
        """Return what an act counts against the limits in force."""
        if self.purse is None:
            return ()
        costs = [("calls", 1)]
        if op == "connect":
            costs.append(("bytes", 1))  # that a spent limit asks when the connection is made
        if rule is not None and rule.cost:
            costs.append(("spend", rule.cost))
        return self.purse.relevant(costs)

    def take(self, costs: Costs) -> bool:
        """Pay ``costs``; False when remitd has to be asked."""
        if self.purse is None or not costs:
            return True
        paid = self.purse.take(costs)
        self._tell()
        return paid

    def pay(self, costs: Costs) -> None:
        """Count ``costs`` that were allowed, whether a lease covers them or not."""
        if self.purse is not None:
            self.purse.pay(costs)
            self._tell()

    def flow(self, amount: int) -> bool:
        """Count ``amount`` bytes of traffic; False when the agent's limits have no room for more."""
        if self.purse is None or not self.purse.limits("bytes"):
            return True
        within = self.purse.flow(amount)
        self._tell()
        return within

    def given(self, limit: str, given: int, recall: bool) -> None:
        """Take what remitd has given of ``limit`` in all."""
        if self.purse is not None:
            self.purse.granted(limit, given, recall)
            self._tell()

    def adopt(self, limits: Sequence[Limit]) -> None:
        """Go by ``limits`` from now on."""
        if self.purse is not None:
            self.purse.adopt(limits)
        elif limits:
            self.purse = Purse(limits)

    def end(self) -> None:
        """Give back what is left."""
        if self.purse is not None:
            self.purse.close()
            self._tell()

    def _tell(self) -> None:
        if self.purse is not None and self.purse.due:
            for limit, used, returned, want in self.purse.due:
                self._say(
                    {"type": "lease", "limit": limit, "used": used, "returned": returned, "want": want}
                )
            self.purse.due.clear()
