"""From bytes to a policy document. ``read_document`` is total: any file gives a document or problems with
file, line, column and what was expected.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from typing import Any

from pydantic import BaseModel, ValidationError

from remit_policy.document import VARIABLE, Document, Limits, PolicyError, Problem, Source, is_host_key
from remit_policy.locate import Path, locate, position
from remit_policy.values import SEPARATOR, alternatives, quoted

MAX_SIZE = 1 << 20  # bytes of one policy file
MAX_PROBLEMS = 100  # reported of one file: nobody reads more at once
MAX_ALTERNATIVES = (
    50_000  # that the braces of one file stand for: more would hold the daemon up for seconds
)


def read_bytes(path: str, *, owner: int | None = None) -> bytes:
    """Return the content of a policy file; with ``owner``, only if it is that user's and closed to others.

    Raises PolicyError, whatever stands at ``path``.
    """

    def fail(message: str, expected: str) -> PolicyError:
        return PolicyError([Problem(path, 1, 1, message, expected)])

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as e:
        raise fail(f"cannot be opened: {getattr(e, 'strerror', e)}".lower(), "a readable file") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise fail("not a regular file", "a TOML file")
        if owner is not None and (info.st_uid != owner or info.st_mode & 0o022):
            raise fail("others may change this file", "a file owned by root that only root may write")
        if info.st_size > MAX_SIZE:
            raise fail("the file is too large", f"at most {MAX_SIZE} bytes")
        data = b""
        while len(data) <= MAX_SIZE and (more := os.read(fd, MAX_SIZE + 1 - len(data))):
            data += more
    except OSError as e:
        raise fail(f"cannot be read: {e.strerror}".lower(), "a readable file") from None
    finally:
        os.close(fd)
    if len(data) > MAX_SIZE:
        raise fail("the file is too large", f"at most {MAX_SIZE} bytes")
    return data


def read_document(file: str, data: bytes, *, pack: bool = False, most: int = MAX_ALTERNATIVES) -> Source:
    """Read the policy document ``data``, calling it ``file``; its braces may stand for ``most`` patterns. Raises PolicyError."""

    def fail(message: str, expected: str, line: int = 1, column: int = 1) -> PolicyError:
        return PolicyError([Problem(file, line, column, message, expected)])

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        column = e.start - data.rfind(b"\n", 0, e.start)
        raise fail("not UTF-8 text", "a TOML file in UTF-8", line, column) from None
    if text.startswith("\ufeff"):
        raise fail("a byte order mark", "UTF-8 text without one")
    try:
        raw = tomllib.loads(text)
        weight = _weight(raw)
    except tomllib.TOMLDecodeError as e:
        line, column, said = syntax_problem(str(e), text)
        raise fail(said, "TOML", line, column) from None
    except RecursionError:
        raise fail("lists or tables are nested too deeply", "a few levels") from None
    except ValueError:  # Python reads no decimal of more than 4,300 digits
        raise fail("a number is too long", "TOML") from None
    if weight > most:
        expected = f"at most {most} in a file"
        raise fail("the braces stand for too many patterns", expected)
    text = text.replace("\r\n", "\n")
    places = locate(text)
    for path, place in list(places.items()):
        if len(path) > 3 and path[2] == "files" and " " in str(path[3]):
            for op in str(path[3]).split():
                places.setdefault((*path[:3], op, *path[4:]), place)
        if len(path) > 3 and path[2] == "net" and is_host_key(str(path[3])):
            places.setdefault((*path[:3], "requests", *path[3:]), place)
    try:
        document = Document.model_validate(raw)
    except ValidationError as e:
        wrong = {_problem(file, places, d): None for d in e.errors(include_url=False)}
        raise PolicyError(sorted(wrong, key=lambda p: (p.line, p.column))[:MAX_PROBLEMS]) from None
    source = Source(file, document, places)
    problems = [] if pack else [
        source.problem(("role", name, kind, key, "protected"), "'protected' outside the built-in packs", "final, or an ask")
        for name, role in document.role.items()
        for kind, table in (("files", role.files.__dict__), ("net", role.net.__dict__), ("exec", role.exec))
        for key, rule in table.items()
        if isinstance(rule, Limits) and rule.protected
    ]  # fmt: skip
    if problems:
        raise PolicyError(problems)
    return source


def syntax_problem(message: str, text: str) -> tuple[int, int, str]:
    """Return line, column and, in the words that we use, what tomllib's ``message`` about ``text`` says."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", message)
    end = text.count("\n") + 1, len(text) - text.rfind("\n")
    line, column = (int(found[1]), int(found[2])) if found else end
    said = re.sub(r"\s*\(at [^)]*\)", "", message)
    if said == "Cannot overwrite a value":
        said = "a key is given twice"
    if found := re.fullmatch(r"Cannot declare \((.*)\) twice", said):
        name = ".".join(re.findall("'([^']*)'", found[1]))
        said = f"the table '{name}' is given twice"
    return line, column, said[:1].lower() + said[1:]


def _weight(value: Any) -> int:
    """Return how many patterns at most are made of a TOML value."""
    if isinstance(value, str):
        return alternatives(value)
    if isinstance(value, list):
        return sum(map(_weight, value))
    if isinstance(value, dict):
        return sum(alternatives(k) * len(k.split() or " ") * _weight(v) for k, v in value.items())
    return 0


_HOST_KEY = ', or a host in quotes, as in [role.NAME.net."api.example.org"]'
_FORMS = {"env": '"VARIABLE"', "from": '{ file = "..." }'}  # of keys that must be there and are no lists


def _problem(file: str, places: dict[Path, tuple[int, int]], detail: Any) -> Problem:
    path: Path = tuple(detail["loc"])
    line, column = position(places, path)
    kind, message = detail["type"], detail["msg"]
    last = str(path[-1]) if path else ""
    where = ".".join(str(p) for p in path)
    if kind == "value_error":
        message, expected, key = message.removeprefix("Value error, ").split(SEPARATOR)
        if key:
            line, column = position(places, (*path, key))
        return Problem(file, line, column, message, expected)
    if kind == "extra_forbidden":
        return Problem(
            file,
            line,
            column,
            f"unknown key {quoted(last)}",
            "one of "
            + ", ".join(_known(path))
            + (_HOST_KEY if path[:1] == ("role",) and path[2:3] == ("net",) and len(path) == 4 else ""),
        )
    if kind == "missing":
        return Problem(
            file,
            line,
            column,
            f"'{last}' is missing",
            "version = 1" if last == "version" else f"{where} = {_FORMS.get(last, '[...]')}",
        )
    if kind == "literal_error":
        given = detail["input"]
        said = quoted(given) if isinstance(given, str) else "this"
        if detail["ctx"]["expected"] == "'*'":
            return Problem(file, line, column, f"{said} in a rule about the service itself", "'*'")
        return Problem(file, line, column, f"{said} is not a value of '{last}'", detail["ctx"]["expected"])
    if kind == "string_pattern_mismatch" and detail["ctx"]["pattern"] == VARIABLE:
        expected = "letters, digits and _, no digit first"
        return Problem(file, line, column, f"{quoted(detail['input'])} is no variable's name", expected)
    expected = {
        "list_type": "a list in [ ]", "string_type": "a text in quotes", "bool_type": "true or false",
        "model_type": "a table", "dict_type": "a table", "too_short": "at least one entry",
        "string_pattern_mismatch": "64 hexadecimal digits", "int_parsing_size": "a small number",
    }.get(kind, message.lower())  # fmt: skip
    return Problem(file, line, column, f"'{where}' has a wrong value", expected)


def _known(path: Path) -> list[str]:
    model: Any = Document
    for name in path[:-1]:
        fields = getattr(model, "model_fields", None)
        if fields is None:  # a name of the person's choice
            model = model[1] if isinstance(model, tuple) else model
            continue
        field = next((f for k, f in fields.items() if name in (k, f.alias)), None)
        if field is None:
            return ["a key that this version knows"]
        model = _inner(field.annotation)
    if isinstance(model, tuple):
        model = model[1]
    return [f.alias or k for k, f in model.model_fields.items() if k != "protected"]


def _inner(annotation: Any) -> Any:
    args: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is dict:
        return (dict, args[1])
    for arg in args:
        if isinstance(arg, type) and issubclass(arg, BaseModel):
            return arg
    return annotation
