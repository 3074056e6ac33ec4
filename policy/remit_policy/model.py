"""The words of a policy decision: operations, verdicts, rules, decisions and the snapshot.

A *snapshot* is all that an enforcement point needs to decide for one agent in one session: roles are
resolved, variables expanded, layers marked. It is text, one rule a line, so that its digest names it,
a person can read it, and reading it needs nothing but ``str.split``.

The supervisor imports this module at every ``remit run``, so it imports nothing: ``dataclasses``,
``typing`` and ``enum`` would triple the start-up time.
"""

from __future__ import annotations

from remit_policy.limits import UNITS, Limit

FILE_OPS = ("read", "write", "create", "delete", "execute", "list", "metadata")
OPS = (*FILE_OPS, "exec", "connect", "resolve", "listen", "request", "see", "call", "emit", "own", "use")

# An operation that no rule of its own matches in a layer is decided by that layer's rules for this one.
IMPLIED_BY = {"list": "read", "create": "write", "resolve": "connect"}

# Verdicts: what is to be done with a request. The order is severity, so ``max`` is the strictest.
ALLOW, ASK, DENY = 0, 1, 2
VERDICTS = ("allow", "ask", "deny")

# Layers: where a rule comes from. GUARD is what no policy can open (remit's own places).
GUARD, ADMIN, USER, PACK, PROJECT, GRANT = range(6)
LAYERS = ("guard", "admin", "user", "pack", "project", "grant")


class Rule:
    """One pattern of one policy line, for one operation. Immutable by convention; compared by value.

    ``pattern`` is absolute or floating (``**/x``), variables expanded, braces as written. For ``exec``
    it names an executable and ``argv`` holds the pattern tokens that its arguments must match.
    ``excepts`` are patterns that the rule does not cover. ``final`` (on a deny) beats specificity.
    ``protected`` marks a built-in ask that a broader allow of another layer does not override.
    ``rate`` is (uses, seconds): at most so many uses in so many seconds; ``window`` is (start, end) in
    minutes of the local day, end exclusive: a spent rate, or a time outside the window, turns allow
    into ask; so does a spent ``budget``, (bytes, seconds). ``cost`` is what one use adds to the agent's ``spend`` limits, in
    millionths. ``hold`` is seconds, or None for the snapshot's. ``source`` is ``file:line``; ``text`` the pattern as the
    person wrote it.
    """

    __slots__ = (
        "layer", "verdict", "op", "pattern", "excepts", "argv", "final", "protected",
        "rate", "window", "budget", "hold", "source", "role", "text", "cost",
    )  # fmt: skip

    def __init__(
        self,
        layer: int,
        verdict: int,
        op: str,
        pattern: str,
        *,
        excepts: tuple[str, ...] = (),
        argv: tuple[str, ...] | None = None,
        final: bool = False,
        protected: bool = False,
        rate: tuple[int, int] | None = None,
        window: tuple[int, int] | None = None,
        budget: tuple[int, int] | None = None,
        hold: float | None = None,
        source: str = "",
        role: str = "",
        text: str = "",
        cost: int = 0,
    ) -> None:
        self.layer = layer
        self.verdict = verdict
        self.op = op
        self.pattern = pattern
        self.excepts = excepts
        self.argv = argv
        self.final = final
        self.protected = protected
        self.rate = rate
        self.window = window
        self.budget = budget
        self.hold = hold
        self.source = source
        self.role = role
        self.text = text or pattern
        self.cost = cost

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"<Rule {LAYERS[self.layer]} {VERDICTS[self.verdict]} {self.op} {self.text!r} {self.source}>"


class Decision:
    """The outcome for one request: the verdict, the rule that decided (None: nothing matched, or the
    default), and all that matched, most relevant first (for ``why``; empty on the fast path)."""

    __slots__ = ("matches", "rule", "verdict")

    def __init__(self, verdict: int, rule: Rule | None, matches: tuple[Rule, ...] = ()) -> None:
        self.verdict = verdict
        self.rule = rule
        self.matches = matches

    @property
    def source(self) -> str:
        """The deciding rule's ``file:line``, or ``default``."""
        return self.rule.source if self.rule else "default"

    def __repr__(self) -> str:
        return f"<Decision {VERDICTS[self.verdict]} by {self.source}>"


class Secret:
    """A credential that the agent never has: it gets a placeholder in the variable ``env``.

    The gateway puts the value in, towards ``hosts`` alone and only at ``position``: ``bearer``, ``basic`` (for
    ``user``), ``header:NAME`` or ``query:NAME``. ``kind`` and ``place`` say where the value is: ``file`` path, ``env`` variable,
    ``command`` arguments, or ``keyring`` attributes as alternating keys and values.
    """

    __slots__ = ("env", "hosts", "kind", "name", "place", "position", "source", "user")

    def __init__(
        self,
        name: str,
        kind: str,
        place: tuple[str, ...],
        env: str,
        hosts: tuple[str, ...],
        position: str,
        user: str,
        source: str,
    ) -> None:
        self.name, self.kind, self.place = name, kind, place
        self.env, self.hosts, self.position, self.user, self.source = env, hosts, position, user, source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and all(
            getattr(self, n) == getattr(other, n) for n in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.name, self.place))


class SnapshotError(ValueError):
    """A snapshot's text is not what this version of remit writes."""


class Snapshot:
    """Everything an enforcement point decides by.

    ``reads`` is ``ask`` or ``fixed`` (reads enforced by Landlock alone); ``net_all`` opens TCP and UDP
    unmediated; ``hold`` is how long an ask holds an operation, in seconds. ``variables`` are those
    that were expanded (``PROJECT``, ``HOME``, ``TMPDIR``…), for display. ``arguments`` and ``env`` are what the agent's
    program is started with beside what the person gave it; ``trailers``: its git commits are to name it and its session.
    ``signs`` are the hosts to which requests are signed, ``signs_as`` the origin that publishes the key ("" = none is told).
    ``limits`` are the agent's and the session's.
    ``within`` is the snapshot of the session that delegated, where one did: what this one allows must be allowed by it too
    (``narrowed.engine_of``).
    """

    __slots__ = (
        "agent",
        "arguments",
        "env",
        "hold",
        "limits",
        "net_all",
        "reads",
        "rules",
        "secrets",
        "signs",
        "signs_as",
        "trailers",
        "variables",
        "within",
    )

    def __init__(
        self,
        agent: str,
        rules: tuple[Rule, ...],
        *,
        reads: str = "ask",
        net_all: bool = False,
        hold: float = 25.0,
        variables: dict[str, str] | None = None,
        secrets: tuple[Secret, ...] = (),
        arguments: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        trailers: bool = True,
        signs: tuple[str, ...] = (),
        signs_as: str = "",
        limits: tuple[Limit, ...] = (),
        within: Snapshot | None = None,
    ) -> None:
        self.agent = agent
        self.rules = rules
        self.reads = reads
        self.net_all = net_all
        self.hold = hold
        self.variables = variables or {}
        self.secrets = secrets
        self.arguments = arguments
        self.env = env or {}
        self.trailers = trailers
        self.signs = signs
        self.signs_as = signs_as
        self.limits = limits
        self.within = within

    def with_rules(self, rules: tuple[Rule, ...]) -> Snapshot:
        """Return this snapshot with ``rules`` in place of its own."""
        return Snapshot(
            self.agent,
            rules,
            reads=self.reads,
            net_all=self.net_all,
            hold=self.hold,
            variables=self.variables,
            secrets=self.secrets,
            arguments=self.arguments,
            env=self.env,
            trailers=self.trailers,
            signs=self.signs,
            signs_as=self.signs_as,
            limits=self.limits,
            within=self.within,
        )

    def inside(self, above: Snapshot) -> Snapshot:
        """Return this snapshot as that of a session to which the session of ``above`` delegated: never wider in anything.

        A credential is kept where ``above`` has the same; requests are signed to the hosts to which ``above``'s are; reads are never left to
        Landlock, which knows ``above`` alone. The limits are those of both, and ``above``'s where both have the same one.
        """
        return Snapshot(
            self.agent,
            self.rules,
            net_all=self.net_all and above.net_all,
            hold=self.hold,
            variables=self.variables,
            secrets=tuple(s for s in self.secrets if s in above.secrets),
            arguments=self.arguments,
            env=self.env,
            trailers=self.trailers or above.trailers,
            signs=above.signs,
            signs_as=above.signs_as,
            limits=tuple(({m.ident: m for m in self.limits} | {m.ident: m for m in above.limits}).values()),
            within=above,
        )


_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\x1f": "\\u", "\x1e": "\\r"}
_UNESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "u": "\x1f", "r": "\x1e"}
_TRANSLATED = str.maketrans(_ESCAPES)
MAX_WITHIN = 8  # snapshots one in the other; more is no snapshot of ours
_LIST, _NONE = "\x1f", "\x1e"  # between the items of a list; in place of a list that is absent


def _escape(text: str) -> str:
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_ESCAPES.get(c, c) for c in text)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    out, chars = [], iter(text)
    for c in chars:
        if c != "\\":
            out.append(c)
            continue
        code = next(chars, "")
        if code not in _UNESCAPES:
            raise SnapshotError(f"unknown escape \\{code}")
        out.append(_UNESCAPES[code])
    return "".join(out)


def _pack(items: tuple[str, ...]) -> str:
    return "".join(_escape(i) + _LIST for i in items)


def _unpack(text: str) -> tuple[str, ...]:
    return tuple(_unescape(i) for i in text.split(_LIST)[:-1])


def _rule_line(r: Rule) -> str:
    return "\t".join(
        (
            "rule",
            str(r.layer),
            str(r.verdict),
            r.op,
            _escape(r.pattern),
            _pack(r.excepts),
            _NONE if r.argv is None else _pack(r.argv),
            ("f" if r.final else "") + ("p" if r.protected else ""),
            f"{r.rate[0]}/{r.rate[1]}" if r.rate else "",
            f"{r.window[0]}-{r.window[1]}" if r.window else "",
            f"{r.budget[0]}/{r.budget[1]}" if r.budget else "",
            "" if r.hold is None else repr(r.hold),
            _escape(r.source),
            _escape(r.role),
            _escape(r.text),
            str(r.cost or ""),
        )
    )


def _limit_line(m: Limit) -> str:
    return "\t".join(
        ("limit", *map(_escape, (m.section, m.per, m.kind, m.source)), f"{m.amount}/{m.seconds}")
    )


def _limit_of(cells: list[str]) -> Limit:
    section, per, kind, source = map(_unescape, cells[1:5])
    amount, _, seconds = cells[5].partition("/")
    if kind not in UNITS or per not in ("agent", "session"):
        raise SnapshotError(f"unknown limit {cells[1:4]}")
    return Limit(section, per, kind, int(amount), int(seconds), source)


def _secret_line(s: Secret) -> str:
    cells = (s.name, s.kind, s.env, s.position, s.user, s.source)
    return "\t".join(("secret", *map(_escape, cells), _pack(s.place), _pack(s.hosts)))


def _secret_of(cells: list[str]) -> Secret:
    name, kind, env, position, user, source = map(_unescape, cells[1:7])
    place, hosts = cells[7:]
    return Secret(name, kind, _unpack(place), env, _unpack(hosts), position, user, source)


def _rule_of(cells: list[str]) -> Rule:
    (
        _,
        layer,
        verdict,
        op,
        pattern,
        excepts,
        argv,
        flags,
        rate,
        window,
        budget,
        hold,
        source,
        role,
        text,
        cost,
    ) = cells
    if op not in OPS or not 0 <= int(verdict) < len(VERDICTS) or not 0 <= int(layer) < len(LAYERS):
        raise SnapshotError(f"unknown operation, verdict or layer in {cells[1:4]}")
    count, _, seconds = rate.partition("/")
    start, _, end = window.partition("-")
    amount, _, span = budget.partition("/")
    return Rule(
        int(layer),
        int(verdict),
        op,
        _unescape(pattern),
        excepts=_unpack(excepts) if excepts else (),
        argv=None if argv == _NONE else _unpack(argv),
        final="f" in flags,
        protected="p" in flags,
        rate=(int(count), int(seconds)) if rate else None,
        window=(int(start), int(end)) if window else None,
        budget=(int(amount), int(span)) if budget else None,
        hold=float(hold) if hold else None,
        source=_unescape(source),
        role=_unescape(role),
        text=_unescape(text),
        cost=int(cost) if cost else 0,
    )


def dumps(snapshot: Snapshot) -> str:
    """Return the text of ``snapshot``; equal snapshots give equal texts."""
    lines = [
        "remit-snapshot\t1",
        f"agent\t{_escape(snapshot.agent)}",
        f"reads\t{snapshot.reads}",
        f"net_all\t{int(snapshot.net_all)}",
        f"hold\t{snapshot.hold!r}",
        f"trailers\t{int(snapshot.trailers)}",
        f"signs_as\t{_escape(snapshot.signs_as)}",
    ]
    lines += [f"sign\t{_escape(host)}" for host in snapshot.signs]
    lines += [f"var\t{_escape(k)}\t{_escape(v)}" for k, v in sorted(snapshot.variables.items())]
    lines += [f"argument\t{_escape(a)}" for a in snapshot.arguments]
    lines += [f"env\t{_escape(k)}\t{_escape(v)}" for k, v in sorted(snapshot.env.items())]
    lines += [_secret_line(s) for s in snapshot.secrets]
    lines += [_limit_line(m) for m in snapshot.limits]
    lines += [_rule_line(r) for r in snapshot.rules]
    if snapshot.within is not None:
        lines.append("within\t" + dumps(snapshot.within).translate(_TRANSLATED))
    return "\n".join(lines) + "\n"


def loads(text: str) -> Snapshot:
    """Read a snapshot's text.

    Raises SnapshotError when it is not one, naming the line.
    """
    return _loads(text, MAX_WITHIN)


def _loads(text: str, depth: int) -> Snapshot:
    settings: dict[str, str] = {}
    variables: dict[str, str] = {}
    arguments: list[str] = []
    signs: list[str] = []
    env: dict[str, str] = {}
    rules: list[Rule] = []
    secrets: list[Secret] = []
    limits: list[Limit] = []
    within: Snapshot | None = None
    lines = text.split("\n")
    if lines[0] != "remit-snapshot\t1" or lines[-1] != "":
        raise SnapshotError("not a whole snapshot of version 1")
    for number, line in enumerate(lines[1:-1], 2):
        cells = line.split("\t")
        try:
            if cells[0] == "rule":
                rules.append(_rule_of(cells))
            elif cells[0] == "secret":
                secrets.append(_secret_of(cells))
            elif cells[0] == "limit":
                limits.append(_limit_of(cells))
            elif cells[0] == "var":
                variables[_unescape(cells[1])] = _unescape(cells[2])
            elif cells[0] == "within":
                if not depth or within is not None:
                    raise SnapshotError("too many snapshots one in the other")
                within = _loads(_unescape(cells[1]), depth - 1)
            elif cells[0] == "sign":
                signs.append(_unescape(cells[1]))
            elif cells[0] == "argument":
                arguments.append(_unescape(cells[1]))
            elif cells[0] == "env":
                env[_unescape(cells[1])] = _unescape(cells[2])
            else:
                settings[cells[0]] = _unescape(cells[1])
        except (ValueError, IndexError) as e:
            raise SnapshotError(f"line {number}: {e}") from None
    try:
        return Snapshot(
            settings["agent"],
            tuple(rules),
            reads=settings["reads"],
            net_all=settings["net_all"] == "1",
            hold=float(settings["hold"]),
            trailers=settings.get("trailers") != "0",
            signs=tuple(signs),
            signs_as=settings.get("signs_as", ""),
            variables=variables,
            secrets=tuple(secrets),
            arguments=tuple(arguments),
            env=env,
            limits=tuple(limits),
            within=within,
        )
    except (KeyError, ValueError) as e:
        raise SnapshotError(f"missing or malformed setting {e}") from None
