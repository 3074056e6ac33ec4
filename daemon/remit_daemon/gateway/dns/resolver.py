"""The session's resolver: policy first, then a look-up, if any.

For each question, in this order; the first that applies answers:

    localhost names            127.0.0.1, ::1
    spellings of an address    NXDOMAIN (they are addresses, whatever they are called)
    the hosts file             its addresses, unless policy denies the name
    reverse names              what this session's history, stand-ins or the hosts file say; else by policy as any name
    policy denies              NXDOMAIN with the extended error "Blocked". (REFUSED makes musl wait for its time-out, and glibc
                               report a passing failure, which clients then retry.)
    policy asks, or a rate     a stand-in address for A, no data for anything else: nothing leaves this machine, the question
    is spent                   is asked at the connect. A name of several labels below a search domain is what a client made of
                               another name: NXDOMAIN, so that it goes on to the name that was meant.
    suspicious (``watch``)     flagged in the journal, then as if policy asked
    policy allows              the nameservers, whatever the type

What a nameserver says of a name: only the records of the question's own chain of CNAMEs are passed on; the queried name
is what was decided, wherever the chain leads. Addresses are pinned (``names``). Special ones (private, loopback, metadata…)
are given out only where a rule names them; in place of an answer that has no others there is a stand-in, so the
connect, which knows the port, decides and explains. HTTPS and SVCB records lose ``ech`` and their addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING

from remit_daemon.gateway.authority import Refused
from remit_daemon.gateway.dns import message
from remit_daemon.gateway.dns.hosts import LOOPBACK, is_localhost
from remit_daemon.gateway.dns.message import AAAA, CNAME, HTTPS, PTR, SOA, SVCB, A, MessageError, Record
from remit_daemon.gateway.dns.upstream import NoAnswer
from remit_policy import hosts as spelling
from remit_policy.model import ALLOW, ASK, DENY

if TYPE_CHECKING:
    from remit_daemon.gateway.authority import Authority, Origin
    from remit_daemon.gateway.dns.hosts import Hosts
    from remit_daemon.gateway.dns.message import Query
    from remit_daemon.gateway.dns.names import Names, Pin
    from remit_daemon.gateway.dns.upstream import Upstream
    from remit_daemon.gateway.dns.watch import Watch
    from remit_policy.model import Rule

MAX_TTL = 60  # seconds that clients may keep what we said: a denied name must not live on in a cache
STAND_IN_TTL = 5  # a later allow is to show real addresses soon
MAX_CHAIN = 16  # CNAMEs of one answer; BIND follows 16
MAX_FLAGGED = 4096  # suspicious names that are remembered; stand-ins are bounded alike
MAX_NOTED = 32  # rows of flagged names for each domain: the ledger needs to know, not to carry the data out
_WILD = frozenset("*?[{")
_USUAL_PORTS = (443, 80)  # where a rule that names an address is looked for when no port is known yet


class Resolver:
    """The resolver of one session. ``search`` are the domains that clients append to short names."""

    def __init__(
        self,
        authority: Authority,
        names: Names,
        watch: Watch,
        hosts: Hosts,
        upstream: Upstream,
        search: tuple[str, ...] = (),
    ) -> None:
        self.names = names
        self.hosts = hosts
        self.watch = watch
        self._authority = authority
        self._upstream = upstream
        self._search = tuple(["." + d for d in search])
        self._asking: dict[tuple[str, int], asyncio.Task[message.Answer]] = {}
        self._flagged: OrderedDict[str, str] = OrderedDict()
        self._noted: OrderedDict[str, int] = OrderedDict()

    # -- the stub's side ---------------------------------------------------------------------------

    async def respond(self, raw: bytes, origin: Origin, *, udp: bool) -> bytes:
        """Return the answer to the query ``raw``, b"" when it deserves none. Raises nothing."""
        try:
            query = message.read_query(raw)
        except MessageError as e:
            return message.failure(raw, e.rcode)
        try:
            return await self._answer(query, origin, udp)
        except Exception:  # any fault of ours is a failure to the client, and the resolver goes on
            return message.write_answer(query, message.SERVFAIL, udp=udp)

    async def _answer(self, query: Query, origin: Origin, udp: bool) -> bytes:
        def say(
            rcode: int, *records: Record, authority: tuple[Record, ...] = (), blocked: str = ""
        ) -> bytes:
            return message.write_answer(query, rcode, records, authority, udp=udp, blocked=blocked)

        name = query.name
        if is_localhost(name):
            return say(message.NOERROR, *_addresses(query, LOOPBACK))
        try:
            if not name or spelling.canonical(name) != name:
                return say(message.NXDOMAIN)
        except spelling.HostError:
            return say(message.REFUSED)
        if spelling.is_address(name):
            return say(message.NXDOMAIN)
        decision = self._authority.decide("resolve", name)
        fixed = self.hosts.addresses(name)
        if fixed and decision.verdict != DENY:
            return say(message.NOERROR, *_addresses(query, fixed))
        back = self._reverse(name)
        if back:
            found = [Record(name, PTR, STAND_IN_TTL, message.wire_name(n)) for n in back]
            return say(message.NOERROR, *(found if query.type == PTR else ()))
        allowed = False
        if decision.verdict != ASK and not (
            decision.verdict == ALLOW and self.suspicion(name, decision.rule, origin)
        ):
            try:
                permit = self._authority.permit_now("resolve", name, origin)
            except Refused as e:
                return say(message.NXDOMAIN, blocked=f"refused by remit: {e.reason} ({e.rule})")
            if permit is not None:  # else a rate is spent
                permit.done()
                allowed = True
        if not allowed:
            if _is_reverse(name) or self._made_by_search(name):
                return say(message.NXDOMAIN)
            if query.type != A:
                return say(message.NOERROR)
            return say(message.NOERROR, *self._stand_in(name))
        try:
            if query.type in (A, AAAA):
                return await self._real(query, say)
            answer = await self._ask(name, query.type)
        except NoAnswer:
            return say(message.SERVFAIL)
        return say(answer.rcode, *_of_chain(answer.answers, name, query.type), authority=_soa(answer, name))

    async def _real(self, query: Query, say: _Say) -> bytes:
        """Answer an allowed name's A or AAAA."""
        family = 4 if query.type == A else 6
        pin, answer = await self._pin(query.name, family)
        if pin is None:
            assert answer is not None
            return say(answer.rcode, authority=_soa(answer, query.name))
        given = [a for a in pin.addresses if self.may_be_given(a)]
        if not given:
            return say(message.NOERROR, *(self._stand_in(query.name) if query.type == A else ()))
        records: list[Record] = []
        owner = query.name
        for target in pin.chain:
            records.append(Record(owner, CNAME, min(pin.ttl, MAX_TTL), message.wire_name(target)))
            owner = target
        for address in given:
            self.names.remember(address, query.name)
            records.append(
                Record(owner, query.type, min(pin.ttl, MAX_TTL), ipaddress.ip_address(address).packed)
            )
        return say(message.NOERROR, *records)

    def _stand_in(self, name: str) -> tuple[Record, ...]:
        address = self.names.stand_in(name)
        return (Record(name, A, STAND_IN_TTL, ipaddress.ip_address(address).packed),)

    def _made_by_search(self, name: str) -> bool:
        return any(name.endswith(d) and "." in name[: -len(d)] for d in self._search)

    def _reverse(self, name: str) -> tuple[str, ...]:
        """Return what this session calls the address whose reverse name ``name`` is."""
        address = _reversed_address(name)
        if not address:
            return ()
        stood = self.names.behind(address)
        return (stood,) if stood else self.names.of(address) or self.hosts.names(address)

    # -- the dialler's side ------------------------------------------------------------------------

    async def may_pass(self, raw: bytes, origin: Origin) -> bool:
        """Say whether a query may go past us to its nameserver (musl asks every server, unconnected).

        Only what policy allows outright; it is looked up here too, so that its addresses are known as the name's.
        Raises nothing.
        """
        try:
            query = message.read_query(raw)
            name = query.name
            if not name or spelling.canonical(name) != name or spelling.is_address(name):
                return False
            decision = self._authority.decide("resolve", name)
            if (
                decision.verdict != ALLOW
                or self.suspicion(name, decision.rule, origin)
                or self.hosts.addresses(name)
            ):
                return False
            permit = self._authority.permit_now("resolve", name, origin)
            if permit is None:
                return False
            permit.done()
            if query.type not in (A, AAAA):
                return query.type not in (HTTPS, SVCB)  # those must lose parts of theirs on the way
            pin, _ = await self._pin(name, 4 if query.type == A else 6)
            for address in pin.addresses if pin else ():
                if not self.may_be_given(address):
                    return False
                self.names.remember(address, name)
        except Exception:  # any fault of ours is a no
            return False
        return True

    async def addresses(self, name: str) -> list[str]:
        """Return the pinned addresses of ``name``, those of IPv6 first; no policy: the caller holds a permit.

        Raises OSError (EHOSTUNREACH) when there are none.
        """
        if is_localhost(name):
            return list(LOOPBACK)
        fixed = self.hosts.addresses(name)
        if fixed:
            return list(fixed)
        found, why = list[str](), f"{name} has no address"
        for done in await asyncio.gather(self._pin(name, 6), self._pin(name, 4), return_exceptions=True):
            if isinstance(done, (NoAnswer, MessageError)):
                why = str(done)
                continue
            if isinstance(done, BaseException):
                raise done
            if done[0] is not None:
                found += done[0].addresses
        if not found:
            raise OSError(113, why)  # EHOSTUNREACH
        return found

    def suspicion(self, name: str, rule: Rule | None, origin: Origin) -> str:
        """Return why an allowed ``name`` is suspicious, "" when it is not; the first of a domain are recorded."""
        known = self._flagged.get(name)
        if known is not None:
            return known
        wild = rule is not None and bool(_WILD & set(rule.pattern))
        why = self.watch.look(name, wild)
        if not why:
            return ""
        self._flagged[name] = why
        if len(self._flagged) > MAX_FLAGGED:
            self._flagged.popitem(last=False)
        noted = self._noted.get(why, 0)
        if noted < MAX_NOTED:
            self._noted[why] = noted + 1
            if len(self._noted) > MAX_FLAGGED:
                self._noted.popitem(last=False)
            self._authority.flag("resolve", name, origin, rule, why)
        return why

    def cleared(self, name: str) -> None:
        """A person allowed ``name`` although it was suspicious."""
        self._flagged.pop(name, None)
        self.watch.forgive(name)

    def may_be_given(self, address: str) -> bool:
        """Say whether ``address`` may stand in an answer: it is not special, or a rule names it."""
        if self.names.is_stand_in(address):
            return False
        if not spelling.is_special(address):
            return True
        return any(
            self._authority.decide("connect", literal(address, p)).verdict == ALLOW for p in _USUAL_PORTS
        )

    async def _pin(self, name: str, family: int) -> tuple[Pin | None, message.Answer | None]:
        """Return the pin of ``name``; or None, and the answer that has no addresses. Raises NoAnswer."""
        pin = self.names.pinned(name, family)
        if pin is not None:
            return pin, None
        type = A if family == 4 else AAAA
        answer = await self._ask(name, type)
        chain = _of_chain(answer.answers, name, type)
        found = [str(ipaddress.ip_address(r.data)) for r in chain if r.type == type]
        if answer.rcode != message.NOERROR or not found:
            return None, answer
        ttl = min([r.ttl for r in chain])
        passed = [message.read_name(r.data) for r in chain if r.type == CNAME]
        return self.names.pin(name, family, found, ttl, passed), None

    async def _ask(self, name: str, type: int) -> message.Answer:
        """Ask the nameservers; who asks the same at the same time shares the answer."""
        key = (name, type)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._upstream.ask(name, type))

            def over(done: asyncio.Task[message.Answer]) -> None:
                self._asking.pop(key, None)
                if not done.cancelled():
                    done.exception()  # looked at, should all who waited be gone

            task.add_done_callback(over)
        return await asyncio.shield(task)


if TYPE_CHECKING:
    from typing import Protocol

    class _Say(Protocol):
        def __call__(self, rcode: int, *records: Record, authority: tuple[Record, ...] = ...) -> bytes: ...


def literal(address: str, port: int) -> str:
    """Return the resource of an address and a port: `10.0.0.1:443`, `[2001:db8::1]:443`, `localhost:80`."""
    return spelling.of_address(spelling.packed(address), port)


def _addresses(query: Query, addresses: tuple[str, ...]) -> list[Record]:
    found = [ipaddress.ip_address(a) for a in addresses]
    wanted = {A: 4, AAAA: 6}.get(query.type)
    return [Record(query.name, query.type, STAND_IN_TTL, a.packed) for a in found if a.version == wanted]


def _of_chain(records: list[Record], name: str, type: int) -> list[Record]:
    """Return the CNAMEs from ``name`` on and the records of ``type`` at their end, made plain. Raises MessageError."""
    out: list[Record] = []
    owner = name
    if type != CNAME:
        links = {r.name: r for r in records if r.type == CNAME}
        while owner in links:
            if len(out) >= MAX_CHAIN:
                raise MessageError("a chain of CNAMEs without end", message.SERVFAIL)
            link = links[owner]
            out.append(link)
            owner = message.read_name(link.data)
    for record in records:
        if record.name != owner or record.type != type:
            continue
        if type in (HTTPS, SVCB):
            plain = message.plain_service(record.data)
            if plain is None:
                continue
            record = Record(record.name, type, record.ttl, plain)
        out.append(Record(record.name, type, min(record.ttl, MAX_TTL), record.data))
    return out


def _soa(answer: message.Answer, name: str) -> tuple[Record, ...]:
    """Return the SOA that says how long the name's absence holds."""
    for record in answer.authority:
        if record.type == SOA and (not record.name or ("." + name).endswith("." + record.name)):
            return (Record(record.name, SOA, min(record.ttl, MAX_TTL), record.data),)
    return ()


def _is_reverse(name: str) -> bool:
    return name.endswith((".in-addr.arpa", ".ip6.arpa"))


def _reversed_address(name: str) -> str:
    """Return the address that a reverse name (RFC 1035 3.5, RFC 3596 2.5) stands for, "" when it is none."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if name.endswith(".ip6.arpa") and len(labels) == 34 and all(len(x) == 1 for x in labels[:32]):
            return str(ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16)))
    except ValueError:
        pass
    return ""
