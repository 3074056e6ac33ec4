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
    check_argv,
    check_host,
    check_name,
    check_pattern,
    parse_duration,
    parse_rate,
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
ArgvPattern = Annotated[str, AfterValidator(check_argv)]
Duration = Annotated[str, _checked(parse_duration)]
Rate = Annotated[str, _checked(parse_rate)]
Window = Annotated[str, _checked(parse_window)]


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
        if (self.rate or self.window) and not allow:
            key = "rate" if self.rate else "window"
            raise bad(f"a {key} without an allow", "an allow that it limits", key)
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


class HostRule(Limits):
    """The hosts of ``connect``."""

    allow: list[HostPattern] = []
    ask: list[HostPattern] = []
    deny: list[HostPattern] = []


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
    """Network rules."""

    all: bool = Field(default=False, description="open TCP and UDP, unmediated")
    connect: HostRule | None = None

    @model_validator(mode="after")
    def _fits(self) -> Net:
        if self.all and self.connect is not None:
            raise bad(
                "connect rules beside 'all = true'",
                "one of them: what is unmediated obeys no rule",
                "connect",
            )
        return self


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


class Match(_Strict):
    """What makes a program this agent; all that is given must fit."""

    name: Annotated[str, AfterValidator(check_name)] | None = Field(
        default=None, description="a glob on the agent's name"
    )
    exe: PathPattern | None = Field(default=None, description="the executable")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


class Agent(_Strict):
    """An agent and its roles."""

    match: Match = Match()
    roles: list[str] = Field(min_length=1)


def _no_bool(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value  # true is 1 to Python, not to TOML


class Document(_Strict):
    """One policy file."""

    version: Annotated[Literal[1], BeforeValidator(_no_bool)]
    agent: dict[str, Agent] = {}
    role: dict[str, Role] = {}


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
