"""The approver and agent sockets: JSON-RPC 2.0, one object a line, UTF-8.

The kernel names the writer of each message, not only who connected (``senders`` of ``status``: "pidfd", or "pid" where the kernel gives the
number alone, before Linux 6.5). A line is written by one process; descriptors that come with it are closed. Where an answer has
descriptors, they come with the first byte of its line (SCM_RIGHTS), so no later than it.

``approver.sock`` is for the person: its peers are verified, none of them may be inside a session, and each writes for itself: a
message from another process on its connection ends it.

    status                                {version, pid, sessions, prompts, policy: {errors: [{file, line, column, message}], revision}, ledger: {rows}, senders,
                                          agents: {known, pending: [name], adopted: [pid]}}
    sessions                              [Session]
    stop / pause / resume  {session}      {}
    prompts  {all?: bool}                 [Prompt]   open ones; with ``all`` the missed and settled as well
    prompt   {id}                         Prompt
    look     {id, looking: bool}          {}         a person is reading it: its clock stops
    preview  {id, verdict, for, scope?}   {rule: str, scope: str}   the exact rule that ``answer`` would store
    answer   {id, verdict: allow|deny, for: once|session|always|SECONDS, scope?: pattern, message?}
                                          {rule: str, grant: id|null, settled: [prompt ids]}
    grants                                [Grant]
    revoke   {id} | {agent} | {all: true} {revoked: [ids]}
    log      {actor?, agent?, session?, path?, op?, outcome?, since?: s, until?: s, after?: seq, limit?}   [Entry], oldest first
    log.verify                            {ok: bool, rows, checkpoints, errors: [str]}
    who      {path} | {pid} | {name}      {actor, agent, session, assurance, note, entries: [Entry]}   assurance "" for a human
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
    token.scopes                          {scopes: {name: {sentence, access, risk, sensitive}}, roles: {name: [scope]}}
    reload                                {errors: [...], revision}
    watch    {log?: filter}               {} then notifications: ``prompt`` Prompt, ``prompt.done`` {id, state}, ``session`` Session,
                                          ``entry`` Entry (only with ``log``)

``agent.sock`` is for programs, told by the kernel's word on the writer of each message. Inside a session they speak for that session,
whatever they say of themselves; they write with write(2) or send(2), since sendmsg(2) is performed by remit itself and refused here: it
cannot say for whom. A program outside every session gets a session of its own at its first question: not confined, so what it is told is
honest bookkeeping, and ended with its process. One connection has one question under way at a time.

    hello    {agent?, project?, pid?}     Me       (outside only) its name and place; with pid an ancestor's session
    whoami                                Me
    check    {op, resource, argv?}        {verdict: allow|ask|deny, rule, op, resource}   nobody is asked, nothing is recorded
    request  {op, resource, argv?, purpose?, wait?: s}
                                          {verdict: allow|ask|deny, rule, prompt, message, op, resource}
                                          permission ahead of the act: an answer for once waits for the act; ``ask``: the time was over
    intend   {purpose, resources?: [str]} {}       why the next acts on these (none: all) are done; shown with their questions
    open     {path, mode?: read|write|readwrite|create, purpose?, wait?}
                                          {path, mode} and a descriptor of the regular file, real path
    connect  {host, port, purpose?, wait?} {resource, address} and a connected socket; outside sessions only
    denials  {limit?}                     [Entry]  of this session only

Operations and resources are those of ``remit policy why``; a path is resolved to the object's own. ``wait`` is how long a person's answer
is waited for, by default the policy's hold; afterwards the question stays open. For programs outside sessions, token.introspect and
token.keys are as on approver.sock; inside:

    token    {scope?, authorization_details?, audience?}        Given   the session's own, for five minutes
    token.exchange {subject_token, agent, scope?, authorization_details?}   Given   narrower, for a sub-agent (RFC 8693)
    token.introspect, token.revoke {token}, token.keys, token.metadata (RFC 7662, 7009, 7517, 8414)

Session  {id, agent, pid, project, argv, started, ended: s|null, state: running|paused|ended, status: int|null, ask, net_all,
          waiting: int, assurance, confined: bool, enforced: [str]}
Me       {session, agent, project, confined: bool, assurance, state}; session "" for who has none yet
Prompt   {id, state: open|allowed|denied|missed, agent, session, project, ops, path, path2, pid, exe, comm, argv, source, count,
          created, looking, holding: int, answer: null|{verdict, for, scope, rule, by, at},
          scopes: [{scope: pattern, label: str, rule: str}],   narrow to broad; only these or narrower edits count
          purpose: str, what the agent says it is for; confined: bool, its session's}
Grant    {id, agent, session: id|null, ops, scope, verdict, for, rule, created, expires: s|null, last_used: s|null, uses, by, suspended,
          withheld}   withheld: its agent's program has changed since
Agent    {name, created, changed: s|null, pending, grants: int, programs: [{digest, path, how: launched|registered|adopted, first_seen,
          last_seen, interpreter_digest, publisher}], adopted: [pid]}   pending: grants wait for agent.update; the latest program first
Entry    {seq, time, actor, agent, session, pid, proc, exe, sha256, op, path, path2, verdict, outcome, rule, prompt, note, argv}
Given    {access_token, issued_token_type, token_type, expires_in, scope, authorization_details}   RFC 8693 2.2.1
assurance is L3 (started by remit), L2 (a native program that is known under the name), L1 (a script that is, by its interpreter's word) or L0.
Refusal  {op, resource, verdict: deny|ask, rule, prompt} or, from the file system, {resource, errno: name}
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
BUSY = -32011  # too much at once; later it may be possible

MAX_LINE = 4 << 20
