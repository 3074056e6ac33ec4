"""What a sub-session may do: its own snapshot's word and that of the session that delegated, the stricter of both.

The session above is asked as it stands at each moment, counted limits included, so a child draws from what its parent has. Landlock knows
only what the first session got, which is wider: so nothing is static here, and no call is left to the kernel on the target's own
string where another string would reach more. An exec is, as in every session: what is run is no boundary.
"""

from __future__ import annotations

from remit_daemon.supervisor.authority import Authority
from remit_policy import model
from remit_policy.narrowed import Narrowed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remit_policy.engine import Engine
    from remit_policy.model import Decision, Snapshot


class Narrow(Authority):
    """Decides for a sub-session of the session that ``above`` decides for."""

    backed = False
    _own: Engine
    _both: Narrowed

    def __init__(self, snapshot: Snapshot, above: Authority) -> None:
        self._above = above
        super().__init__(snapshot)

    @property
    def engine(self) -> Engine:
        """Both engines in force, for questions that spend nothing."""
        above = self._above.engine
        if self._both.above is not above:  # the one above has adopted another snapshot
            self._both = Narrowed(self._own, above)
        return self._both

    @engine.setter
    def engine(self, own: Engine) -> None:
        self._own = own
        self._both = Narrowed(own, self._above.engine)

    def decide(self, op: str, path: str, given: str | None = None) -> Decision:
        """As Authority.decide. The one above counts a use only where this one allows it."""
        own, other = self._own, given if given is not None else path
        mine = self._conditioned(own.decide_given(op, path, other))
        if mine.verdict == model.ALLOW:
            return _stricter(mine, self._above.decide(op, path, given))
        return _stricter(mine, self._above.engine.decide_given(op, path, other))

    def decide_exec(self, exe: str, argv: list[str]) -> Decision:
        """As Authority.decide_exec"""
        mine = self._conditioned(self._own.decide_exec(exe, argv))
        if mine.verdict == model.ALLOW:
            return _stricter(mine, self._above.decide_exec(exe, argv))
        return _stricter(mine, self._above.engine.decide_exec(exe, argv))

    def has_secret(self, port: int) -> bool:
        """As Authority.has_secret: what the session above must not listen at, this one must not either"""
        return super().has_secret(port) or self._above.has_secret(port)


def _stricter(mine: Decision, above: Decision) -> Decision:
    return above if above.verdict > mine.verdict else mine
