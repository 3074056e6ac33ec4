"""The approver and agent sockets: JSON-RPC 2.0, one object a line, UTF-8.

The kernel names the writer of each message, not only who connected (``senders`` of ``status``: "pidfd", or "pid" where the kernel gives the
number alone, before Linux 6.5). A line is written by one process; descriptors that come with it are closed. Where an answer has
descriptors, they come with the first byte of its line (SCM_RIGHTS), so no later than it.

``approver.sock`` is for the person: its peers are verified, none of them may be inside a session, and each writes for itself: a
message from another process on its connection ends it.

    status                                {version, pid, sessions, prompts, policy: {errors: [{file, line, column, message}], revision}, ledger: {rows},
                                          senders, review: {due: int, suspended: int}, quiet: null|{mode, until},
                                          agents: {known, pending: [name], adopted: [pid]}, limits: [text of each that is spent]}
    sessions                              [Session]
    stop / pause / resume  {session}      {}
    prompts  {all?: bool, missed?: bool}  [Prompt]   open ones; with ``all`` the missed and settled as well; with ``missed`` these alone
    prompt   {id}                         Prompt
    look     {id, looking: bool}          {}         a person is reading it: its clock stops
    preview  {id, verdict, for, scope?}   {rule: str, scope: str}   the exact rule that ``answer`` would store
    reach    {id, scope?}                 {scope, rule, ledger: Count, disk: Count|null}   what else that scope would permit: acts of the
                                          last 30 days, and files there are (null where it is about one, or none); within a second
    answer   {id, verdict: allow|deny, for: once|session|always|SECONDS, scope?: pattern, message?, via?: cli|tui|notification}
                                          {rule: str, grant: id|null, settled: [prompt ids]}
    grants                                [Grant]
    limits   {agent?}                     [Limit]
    revoke   {id} | {agent} | {all: true} {revoked: [ids]}
    learn    {session}                    {session, agent, home, project, proposals: [Proposal], left: acts that are protected or cannot be written}
    policy.effective {agent, project?}    {agent, project, roles, reads, net_all, rules: [PolicyRule], at_least: bool}   what is in force for it,
                                          strongest layer first; as its last session had it, unless a project is given
    report   {session}                    Report
    grant.narrow {id, scope}              {grant: id, rule}   within what it covers only
    grant.extend {id, seconds}            {grant: id, rule}   ends so long from now, later than it would, within 365 days
    grant.keep   {id}                     {grant: id, rule}   a person looked at it; a suspended one is in force again
    review.done  {kept, narrowed, revoked, skipped: int}      {}   a person went through those that are ``due``
    quiet    {mode: deny|hold|off, seconds?}  {mode, until: s|null}   until then every question is denied, or held, and nobody is called
    log      {Filter}                     [Entry], oldest first
    log.page {Filter}                     {entries: [Entry], next: seq|null, size: rows}   a page, found in some ms: ``next`` is its successor's
                                          ``after`` (when this had one) or ``before``; null: there is no more. May be empty before
    log.find {time: s}                    {seq: seq|null}   the first row of then or later
    log.verify                            {ok: bool, rows, checkpoints, errors: [str]}
    who      {path} | {pid} | {name} | {commit: 7 or more hexadecimal digits}
                                          {actor, agent, session, assurance, note, entries: [Entry], basis, text}   assurance "" for a human
                                          basis (paths, commits): object (this very file, or the commit's own object) | content (another
                                          file with the content that was left) | path (its name alone) | "" (no record); text says it
    agents                                [Agent]
    agent    {name}                       Agent
    agent.register {name, pid} | {name, exe, script?}           Agent   its program is this agent's; paths are absolute
    agent.forget {name}                   {revoked: [ids]}      the name, and what was granted to it
    agent.update {name, keep: bool}       {kept: [ids]} | {dropped: [ids]}   what was granted before its program changed
    adopt    {pid, agent?}                {pid, agent, assurance, note, program}   a running process is called so until it ends, unconfined
    denials  {session?, limit?}           [Entry]
    trust    {dir, digest}                {}
    token.issue {agent, pid, scope?, authorization_details?, audience?}   Given   bound to that process, and ends with it
    token.list                            [{jti, agent, scope, grant, authorization_details, issued, expires, parent, algorithm}]
    token.introspect {token}              RFC 7662
    token.revoke {jti} | {grant} | {token}                      {revoked: [jti]}   with all that was made from it
    token.keys                            RFC 7517
    token.metadata                        {issuer, ...} in the words of RFC 8414, and revocation_epoch: a token of a smaller ``epoch`` may be revoked
    token.scopes                          {scopes: {name: {sentence, access, risk, sensitive}}, roles: {name: [scope]}}
    key.create {name, scope?, authorization_details?, audience?, expires_in?: s, review_in?: s, rate?: [uses, s]}
                                          Key and {key}   its text, shown this once; one of the two dates is required
    key.list                              [Key]
    key.review {id, review_in: s}         Key        it was looked at; the next review
    key.revoke {id}                       {revoked: id, tokens: int}
    reload                                {errors: [...], revision}
    watch    {log?: Filter}               {} then notifications: ``prompt`` Prompt, ``prompt.done`` {id, state}, ``session`` Session,
                                          ``entry`` Entry (only with ``log``), ``grant`` Grant with change: kept|suspended|removed|expired,
                                          ``limit`` Limit (80 % of it are spent), ``review`` {grants: int} once a month while some are due, ``quiet`` {mode, until: s|null}

A program outside sessions finds here, too, with its tokens bound to its process:

    token.request {agent, scope?, authorization_details?, audience?}   Given | {request, interval: s, expires_in: s}   a person is asked
    token.poll {request}                  Given; until then TOKEN_REFUSED with RFC 8628's authorization_pending, slow_down,
                                          access_denied, expired_token, and invalid_grant for what was used or is another's
    token.refresh {refresh_token, scope?, audience?} Given      RFC 6749 6; the handle is used up, used again it ends all that came of it
    token.key {key, scope?, authorization_details?}   Given   for an organisation key (``tokens.keys``)
    token.exchange                        as below

``agent.sock`` is for programs, told by the kernel's word on the writer of each message. Inside a session they speak for that session,
whatever they say of themselves; they write with write(2) or send(2), since sendmsg(2) is performed by remit itself and refused here: it
cannot say for whom. A program outside every session gets a session of its own at its first question: not confined, so what it is told is
honest bookkeeping, and ended with its process. One connection has one question under way at a time. A session may have 64 connections,
a process outside 1024, and some places are left to those who have few; who gets none is told BUSY, without an id, and the connection closed.

    hello    {agent?, project?, pid?}     Me       (outside only) its name and place; with pid an ancestor's session
    whoami                                Me
    check    {op, resource, argv?}        {verdict: allow|ask|deny, rule, op, resource}   nobody is asked, nothing is recorded
    request  {op, resource, argv?, purpose?, wait?: s}
                                          {verdict: allow|ask|deny, rule, prompt, message, op, resource}
                                          permission ahead of the act: an answer for once waits for the act; ``ask``: the time was over.
                                          argv of op exec alone; a purpose has at most 500 characters, everywhere
    intend   {purpose, resources?: [str]} {}       why the next acts on these (none: all) are done; shown with their questions
    open     {path, mode?: read|write|readwrite|create, purpose?, wait?}
                                          {path, mode} and a descriptor of the regular file, real path
    connect  {host, port, purpose?, wait?} {resource, address} and a connected socket; outside sessions only
    call     {name, path, interface, member, signature?, args?: [value], start?: bool, purpose?, wait?}
                                          {signature, args, descriptors: int, sender}   a method of a program on the session bus, called by
                                          remitd for the caller; values as in ``gateway.dbus.values``, the descriptors of a reply are closed.
                                          With ``start`` a service that does not run is started. 25 s for its answer
    delegate {argv, agent?, policy?: text}   {session, agent, ticket, env}   a sub-session, narrower: the policy of that name and ``policy`` (a
                                          policy file's text) within all that this session may. It begins when a process of this session
                                          connects a Unix socket to the abstract name "\\0remit-claim-" + ticket, within 30 s: that process
                                          is then in it for good, and ends it by ending. ``env`` is for what it executes.
                                          ``policy`` has at most MAX_SUB_POLICY bytes, 2,000 patterns and 8 limits
    denials  {limit?}                     [Entry]  of this session only

Operations and resources are those of ``remit policy why``; a path is resolved to the object's own. ``wait`` is how long a person's answer
is waited for, by default the policy's hold; afterwards the question stays open. For programs outside sessions, token.introspect and
token.keys are as on approver.sock; inside:

    token    {scope?, authorization_details?, audience?}        Given   the session's own, for five minutes: what policy allows unasked
    token.request {scope?, authorization_details?, audience?}, token.poll, token.refresh   as above, for what policy asks about
    token.exchange {subject_token, agent, scope?, authorization_details?, subject_token_type?, requested_token_type?, audience?}
                                          Given   narrower, for a sub-agent (RFC 8693)
    token.introspect, token.revoke {token, token_type_hint?}, token.keys, token.metadata (RFC 7662, 7009, 7517)

``deno.sock`` speaks Deno's own protocol for permission brokers, for programs outside sessions: see ``runtime.deno``.

Session  {id, agent, parent: id|null, pid, project, argv, started, ended: s|null, state: running|paused|ended, status: int|null, ask, net_all,
          waiting: int, assurance, confined: bool, enforced: [str]}
Me       {session, agent, project, parent: id|null, confined: bool, assurance, state}; session "" for who has none yet
Prompt   {id, state: open|allowed|denied|missed, agent, session, project, ops, path, path2, pid, exe, comm, argv, source, count,
          chain: [{pid, comm, exe}] the processes above, nearest first, kind: a kind of ``remit_policy.kinds`` or "" for no file,
          before: {allowed, denied, missed: int} how the same was answered before, created, looking, holding: int, answer: null|{verdict, for, scope, rule, by, at},
          purpose: str, what the agent says it is for; confined: bool, its session's,
          scopes: [{scope: pattern, label: str, rule: str}],   narrow to broad; only these or narrower edits count
          facts: [{label, text}]   of a question about a token (ops ["token"], its path what the token is for); session "" outside,
          limit: str   the state of the limit that is spent, "" where the policy asks; its scopes are this act, or as much once more}
          An answer has a ``via`` too, "" where it is not known.
Grant    {id, agent, session: id|null, ops, scope, verdict, for, rule, created, expires: s|null, last_used: s|null, uses,
          denials: how many of these were refusals, by, via, prompt: the id that it answered, reviewed: s|null, suspended: bool,
          withheld: bool (its agent's program has changed since)}
          and, from ``grants``: {markers: [suspended|unused|stale|never-narrowed|dead], suffices: pattern|"", due: bool}
Limit    {limit, agent, session ("" = all of the agent's), kind, used, held (of that, by enforcement points), spent (bool),
          amount, seconds, source, text}   spend in millionths
Report   {session, agent, project, argv, started, ended: s|null, status, acts: {op: int}, counted: {op: int} (reads in whole trees), human: {op: int},
          changed, deleted: {number, paths: the first 50}, directories: [{path, acts, changes}], hosts: [{host, acts}] the 10 most used,
          denied: {number, what: [{op, path, rule, number}] the 10 most frequent}, asked: {number, allowed, denied, missed} prompts,
          answers: [{prompt, verdict, rule, time}], timeline: {start: s|null, step: s, acts: [int], denied: [int]} at most 60 steps,
          first, last: s|null, at_least: bool}
Proposal {ops, pattern, number: how often, resources: how many things, examples: [resource]}   a rule that would allow what was learnt
PolicyRule {layer: guard|admin|user|pack|project|grant, verdict, op, pattern, text, argv: [str]|null, except: [pattern], final, protected, role,
          source, file, line: int|null, hits: int, last: s|null}   of the last 30 days; reads in whole trees are no hits
Count    {number, at_least: bool, kinds: {kind: int}, examples: [str], secrets: [paths of keys, credentials, histories]}   ``at_least``:
          looking ended before everything was seen
Agent    {name, created, changed: s|null, pending, grants: int, programs: [{digest, path, how: launched|registered|adopted, first_seen,
          last_seen, interpreter_digest, publisher}], adopted: [pid]}   pending: grants wait for agent.update; the latest program first
Filter   {actor?, agent?, session?, path?, op?, outcome?, host?, rule?, denied?: bool, since?: s, until?: s, after?: seq, before?: seq,
          limit?}   without ``after`` the newest
Entry    {seq, time, actor, agent, session, pid, proc, exe, sha256, op, path, path2, verdict, outcome, rule, prompt, note, argv}
Given    {access_token, issued_token_type, token_type, expires_in, scope, authorization_details, refresh_token?}   RFC 8693 2.2.1
Key      {id, name, scope, authorization_details, audience, created, expires: s|null, review: s|null, rate: [uses, s], uses,
          last_used: s|null, state: good|expired|to be reviewed}
A sub-session's agent is its chain, ``reviewer of claude``; a filter by ``agent`` finds it by its first name and by all of it.
assurance is L3 (started by remit), L2 (a native program that is known under the name), L1 (a script that is, by its interpreter's word) or L0.
Refusal  {op, resource, verdict: deny|ask, rule, prompt} or, from the file system, {resource, errno: name}
          FAILED: allowed, and without success; {op, resource, error: the D-Bus error's name, "" when there was no answer}
Times are seconds since the epoch (float); ids are text.
"""

from __future__ import annotations

# JSON-RPC 2.0, section 5.1, and our own.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = (
    -32700, -32600, -32601, -32602, -32603,
)  # fmt: skip
REFUSED = -32000  # the peer may not call this (inside a session, or not the person's)
NOT_FOUND = -32001
CONFLICT = -32002  # already settled
TOKEN_REFUSED = -32003  # data: {error: the OAuth code, error_description}
DENIED = -32010  # an act that must not happen; data: Refusal
FAILED = -32012  # an act that was allowed, and what it was done to fails it; data: Refusal
BUSY = -32011  # too much at once; later it may be possible

MAX_LINE = 4 << 20
MAX_SUB_POLICY = (
    32 << 10
)  # bytes of a policy text that an agent writes: remitd reads it on its one thread, again at every change
MAX_LINE_OF_AGENTS = (
    1 << 20
)  # on agent.sock: each of a thousand connections may hold so much that is no line yet
