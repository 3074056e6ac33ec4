"""The policy document: what a TOML file of rules may say, checked to the last key.

What this version does not enforce is an error, not ignored: nobody shall rely on a rule that does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from remit_policy.locate import Path, position
from remit_policy.values import (
    bad,
    check_app,
    check_argv,
    check_bus_name,
    check_host,
    check_listener,
    check_member,
    check_method,
    check_name,
    check_name_of_host,
    check_named_host,
    check_pattern,
    check_position,
    check_request_path,
    check_scope,
    parse_budget,
    parse_duration,
    parse_money,
    parse_rate,
    parse_spend,
    parse_window,
)


@dataclass(frozen=True)
class Problem:
    """What is wrong in a policy file, where, and what would be right."""

    file: str
    line: int
    column: int
    message: str
    expected: str = ""

    def __str__(self) -> str:
        tail = f"; expected {self.expected}" if self.expected else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{tail}"


class PolicyError(Exception):
    """A policy that cannot be used; ``problems`` say why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def _checked(parse: Any) -> Any:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


PathPattern = Annotated[str, AfterValidator(check_pattern)]
HostPattern = Annotated[str, AfterValidator(check_host)]
NamedHost = Annotated[str, AfterValidator(check_named_host)]
NamePattern = Annotated[str, AfterValidator(check_name_of_host)]
ListenPattern = Annotated[str, AfterValidator(check_listener)]
RequestPath = Annotated[str, AfterValidator(check_request_path)]
Method = Annotated[str, AfterValidator(check_method)]
BusName = Annotated[str, AfterValidator(check_bus_name)]
MemberPattern = Annotated[str, AfterValidator(check_member)]
App = Annotated[str, AfterValidator(check_app)]
ScopeWord = Annotated[str, AfterValidator(check_scope)]
Position = Annotated[str, AfterValidator(check_position)]
ArgvPattern = Annotated[str, AfterValidator(check_argv)]
Duration = Annotated[str, _checked(parse_duration)]
Rate = Annotated[str, _checked(parse_rate)]
Window = Annotated[str, _checked(parse_window)]
Budget = Annotated[str, _checked(parse_budget)]
Money = Annotated[str, _checked(parse_money)]
Spend = Annotated[str, _checked(parse_spend)]
VARIABLE = "^[A-Za-z_][A-Za-z0-9_]*$"
Variable = Annotated[str, Field(pattern=VARIABLE)]
Text = Annotated[str, Field(pattern="^[^\\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Limits(_Strict):
    rate: Rate | None = Field(default=None, description="at most so many uses in a time, as in 200/min")
    hold: Duration | None = Field(
        default=None, description="how long an ask holds the operation, as in 25s"
    )
    window: Window | None = Field(default=None, description="allow only in this part of the local day")
    final: bool = Field(
        default=False,
        description="this deny beats more specific rules; an admin's ask is not answered by a grant",
    )
    protected: bool = Field(
        default=False, description="built-in packs only: a broader allow does not override this"
    )

    @model_validator(mode="after")
    def _fits(self) -> Limits:
        allow, ask, deny = (getattr(self, n) for n in ("allow", "ask", "deny"))
        if not (allow or ask or deny):
            raise bad("a rule without patterns", "at least one of allow, ask, deny")
        if self.final and allow:
            raise bad(
                "'final' beside an allow",
                "final only with deny or ask; put the allow into a role of its own",
                "final",
            )
        if self.protected and allow:
            raise bad("'protected' beside an allow", "protected only with ask or deny", "protected")
        if (self.rate or self.window) and not (allow or ask):
            key = "rate" if self.rate else "window"
            raise bad(
                f"a {key} beside a deny alone",
                "an allow that it limits, or an ask whose answers it limits",
                key,
            )
        return self


class FileRule(Limits):
    """The patterns of one file operation."""

    allow: list[PathPattern] = []
    ask: list[PathPattern] = []
    deny: list[PathPattern] = []
    except_: list[PathPattern] = Field(
        default=[], alias="except", description="paths that these rules leave alone"
    )
    match: list[str] = Field(
        default=[], description="examples that these patterns must match, checked on load"
    )
    not_match: list[str] = Field(default=[], description="examples that these patterns must not match")


class Traffic(Limits):
    """Rules on what carries bytes."""

    budget: Budget | None = Field(
        default=None, description="at most so many bytes in a time, as in 10MB/day"
    )

    @model_validator(mode="after")
    def _spends(self) -> Traffic:
        if self.budget and not (self.allow or self.ask):  # type: ignore[attr-defined]
            raise bad(
                "a budget beside a deny alone",
                "an allow that it limits, or an ask whose answers it limits",
                "budget",
            )
        return self


class HostRule(Traffic):
    """The hosts and Unix sockets of ``connect``."""

    allow: list[HostPattern] = []
    ask: list[HostPattern] = []
    deny: list[HostPattern] = []


class NameRule(Limits):
    """The names of ``resolve``."""

    allow: list[NamePattern] = []
    ask: list[NamePattern] = []
    deny: list[NamePattern] = []


class ListenRule(Limits):
    """The addresses of ``listen``."""

    allow: list[ListenPattern] = []
    ask: list[ListenPattern] = []
    deny: list[ListenPattern] = []


class RequestRule(Traffic):
    """The request paths of one method at one host."""

    cost: Money | None = Field(
        default=None, description="what one request adds to the agent's spend limits, as in 0.02"
    )
    allow: list[RequestPath] = []
    ask: list[RequestPath] = []
    deny: list[RequestPath] = []


class MemberRule(Limits):
    """The members of one service on a bus."""

    allow: list[MemberPattern] = []
    ask: list[MemberPattern] = []
    deny: list[MemberPattern] = []


class WholeRule(Limits):
    """A rule on a service as such; its name is the table's."""

    allow: list[Literal["*"]] = []
    ask: list[Literal["*"]] = []
    deny: list[Literal["*"]] = []


class AppRule(Limits):
    """The app permissions that may be used."""

    allow: list[App] = []
    ask: list[App] = []
    deny: list[App] = []


class SecretRule(Limits):
    """The secrets that may be used, by name; a secret of one's policy is allowed but for these."""

    allow: list[str] = []
    ask: list[str] = []
    deny: list[str] = []


class TokenRule(Limits):
    """The scopes that an agent's tokens may have, and roles of them; *sensitive* ones only an administrator allows."""

    allow: list[ScopeWord] = []
    ask: list[ScopeWord] = []
    deny: list[ScopeWord] = []


class ExecRule(Limits):
    """The arguments with which one program may run."""

    allow: list[ArgvPattern] = []
    ask: list[ArgvPattern] = []
    deny: list[ArgvPattern] = []


class Files(_Strict):
    """File rules by operation. One key may name several, as in ``"write create delete"``."""

    @model_validator(mode="before")
    @classmethod
    def _several(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        out: dict[str, Any] = {}
        for key, table in raw.items():
            for op in str(key).split() or [""]:
                if op in out:
                    raise bad(f"'{op}' is given twice", "one table for each operation", str(key))
                out[op] = table
        return out

    read: FileRule | None = None
    write: FileRule | None = None
    create: FileRule | None = None
    delete: FileRule | None = None
    execute: FileRule | None = None
    list: FileRule | None = None
    metadata: FileRule | None = None


class Net(_Strict):
    """Network rules. A key with a dot, or ``localhost``, is a host whose requests are decided one by one."""

    all: bool = Field(default=False, description="open TCP and UDP, unmediated")
    connect: HostRule | None = None
    resolve: NameRule | None = None
    listen: ListenRule | None = None
    sign: list[NamedHost] = Field(
        default=[], description="hosts to which requests are signed (RFC 9421); their TLS is ended for it"
    )
    signature_agent: Annotated[str, Field(pattern=r"^https://[a-z0-9.-]{1,253}(:[0-9]{1,5})?$")] | None = (
        Field(default=None, description="the origin that publishes the key, told to those hosts")
    )
    requests: dict[NamedHost, dict[Method, RequestRule]] = Field(
        default={}, description="requests by host and method; a host's table may also stand in net itself"
    )

    @model_validator(mode="before")
    @classmethod
    def _hosts(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        own = {k: v for k, v in raw.items() if k in cls.model_fields}
        hosts = {k: v for k, v in raw.items() if k not in cls.model_fields and is_host_key(k)}
        rest = {k: v for k, v in raw.items() if k not in own and k not in hosts}
        return own | rest | ({"requests": own.get("requests", {}) | hosts} if hosts else {})

    @model_validator(mode="after")
    def _fits(self) -> Net:
        if self.all:
            key = next(
                (k for k in ("connect", "resolve", "listen", "sign", "requests") if getattr(self, k)), ""
            )
            if key:
                raise bad(
                    f"{key} rules beside 'all = true'", "one of them: what is unmediated obeys no rule", key
                )
        return self


def is_host_key(key: str) -> bool:
    """Tell whether a key of a net table is a host and not a setting."""
    return "." in key or ":" in key or key == "*" or key.partition(":")[0] == "localhost"


class Service(_Strict):
    """What may be done with one service on a bus."""

    see: WholeRule | None = None
    own: WholeRule | None = None
    call: MemberRule | None = None
    emit: MemberRule | None = None


class Apps(_Strict):
    """App permissions."""

    use: AppRule | None = None


class Secrets(_Strict):
    """Limits on the use of secrets."""

    use: SecretRule | None = None


class Tokens(_Strict):
    """What an agent may have tokens for."""

    use: TokenRule | None = None


class SessionQuota(_Strict):
    """How much one session may do in a time. What is spent asks; spent questions are denied."""

    calls: Rate | None = Field(
        default=None, description="acts that remit decides, but for reads, listings and look-ups"
    )
    bytes: Budget | None = Field(default=None, description="network traffic through remit, both ways")
    delete: Rate | None = Field(default=None, description="files and directories removed")
    prompts: Rate | None = Field(default=None, description="questions to the person")
    spend: Spend | None = Field(default=None, description="money, as the cost of request rules reports it")


class Quota(SessionQuota):
    """How much an agent may do in a time, in all its sessions together."""

    session: SessionQuota | None = Field(default=None, description="the same for each session alone")


class Role(_Strict):
    """A named set of rules."""

    inherits: list[str] = []
    description: str = ""
    reads: Literal["ask", "fixed"] | None = Field(
        default=None, description="fixed: reads are enforced by Landlock alone"
    )
    files: Files = Files()
    net: Net = Net()
    exec: dict[str, ExecRule] = {}
    dbus: dict[BusName, Service] = {}
    apps: Apps = Apps()
    secrets: Secrets = Secrets()
    tokens: Tokens = Tokens()
    limits: Quota | None = Field(
        default=None, description="of each agent that has this role, in all its sessions together"
    )


class Match(_Strict):
    """What makes a program this agent; all that is given must fit."""

    name: Annotated[str, AfterValidator(check_name)] | None = Field(
        default=None, description="a glob on the agent's name"
    )
    exe: PathPattern | None = Field(default=None, description="the executable")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class Agent(_Strict):
    """An agent, its roles, and how its program is started."""

    match: Match = Match()
    roles: list[str] = Field(
        default=[],
        min_length=1,
        description="its roles, in the place of the built-in ones; left out, those stay",
    )
    limits: Quota | None = None
    env: dict[Variable, Text] = Field(
        default={}, description="variables set for it, whatever the person's environment says"
    )
    arguments: list[Text] = Field(
        default=[], description="put before the person's own arguments, where its program itself is started"
    )
    on_change: Literal["keep", "ask"] | None = Field(
        default=None,
        description="when its program is new under its name: keep what was granted it (and say so), or ask whether to",
    )
    trailers: bool = Field(
        default=True, description="whether its git commits get trailers that name it and its session"
    )


class From(_Strict):
    """Where a secret's value is: one of these."""

    file: PathPattern | None = None
    env: Variable | None = None
    command: list[str] | None = Field(default=None, min_length=1)
    keyring: dict[str, str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one(self) -> From:
        if len(self.model_fields_set) != 1:
            raise bad("a secret with no source, or with several", "one of file, env, command, keyring")
        return self


class SecretTable(_Strict):
    """A credential that agents use and never have."""

    from_: From = Field(alias="from")
    env: Variable = Field(description="the variable in which the agent finds the placeholder")
    hosts: list[NamedHost] = Field(min_length=1)
    as_: Position = Field(default="bearer", alias="as")
    user: str = Field(default="", description="with basic: the user's name")
    agents: list[Annotated[str, AfterValidator(check_name)]] = ["*"]


class Sensitive(_Strict):
    """What only an administrator may allow; in an administrator's files alone."""

    hosts: list[HostPattern] = Field(min_length=1)
    approve: Literal["admin"] = "admin"


class ScopesTable(_Strict):
    """A role over the scopes of tokens: what it has itself, and what it inherits."""

    inherits: list[ScopeWord] = []
    scopes: list[ScopeWord] = []
    description: str = ""

    @model_validator(mode="after")
    def _some(self) -> ScopesTable:
        if not (self.inherits or self.scopes):
            raise bad("a role of no scopes", "at least one of inherits, scopes")
        return self


def _no_bool(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value  # true is 1 to Python, not to TOML


class Document(_Strict):
    """One policy file."""

    version: Annotated[Literal[1], BeforeValidator(_no_bool)]
    agent: dict[str, Agent] = {}
    role: dict[str, Role] = {}
    secret: dict[str, SecretTable] = {}
    sensitive: dict[str, Sensitive] = {}
    scopes: dict[ScopeWord, ScopesTable] = {}


@dataclass
class Source:
    """A document with the place of each of its keys."""

    file: str
    document: Document
    places: dict[Path, tuple[int, int]]

    def at(self, *path: str | int) -> str:
        """Return ``file:line`` of a key path."""
        return f"{self.file}:{position(self.places, path)[0]}"

    def problem(self, path: Path, message: str, expected: str = "") -> Problem:
        """Return a problem at a key path."""
        line, column = position(self.places, path)
        return Problem(self.file, line, column, message, expected)
