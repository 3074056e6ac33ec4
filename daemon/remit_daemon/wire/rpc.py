"""The approver and agent sockets: JSON-RPC 2.0, one object a line, UTF-8.

``approver.sock`` is for the person: its peers are verified, and none of them may be inside a session.

    status                                {version, pid, sessions, prompts, policy: {errors: [{file, line, column, message}], revision}, ledger: {rows},
                                           limits: [text of each that is spent]}
    sessions                              [Session]
    stop / pause / resume  {session}      {}
    prompts  {all?: bool}                 [Prompt]   open ones; with ``all`` the missed and settled as well
    prompt   {id}                         Prompt
    look     {id, looking: bool}          {}         a person is reading it: its clock stops
    preview  {id, verdict, for, scope?}   {rule: str, scope: str}   the exact rule that ``answer`` would store
    answer   {id, verdict: allow|deny, for: once|session|always|SECONDS, scope?: pattern, message?}
                                          {rule: str, grant: id|null, settled: [prompt ids]}
    grants                                [Grant]
    limits   {agent?}                     [Limit]
    revoke   {id} | {agent} | {all: true} {revoked: [ids]}
    log      {actor?, agent?, session?, path?, op?, outcome?, since?: s, until?: s, after?: seq, limit?}   [Entry], oldest first
    log.verify                            {ok: bool, rows, checkpoints, errors: [str]}
    who      {path} | {pid} | {name}      {actor, agent, session, entries: [Entry]}
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
                                          ``limit`` Limit (80 % of it are spent), ``entry`` Entry (only with ``log``)

``agent.sock`` is for programs inside a session, told by the kernel's word on the peer, never by what they say:

    whoami                                {session, agent, project}
    denials  {limit?}                     [Entry]  of this session only
    token    {scope?, authorization_details?, audience?}        Given   the session's own, for five minutes
    token.exchange {subject_token, agent, scope?, authorization_details?}   Given   narrower, for a sub-agent (RFC 8693)
    token.introspect, token.revoke {token}, token.keys, token.metadata (RFC 7662, 7009, 7517, 8414)

Session  {id, agent, pid, project, argv, started, ended: s|null, state: running|paused|ended, status: int|null, ask, net_all,
          waiting: int, assurance, enforced: [str]}
Prompt   {id, state: open|allowed|denied|missed, agent, session, project, ops, path, path2, pid, exe, comm, argv, source, count,
          created, looking, holding: int, answer: null|{verdict, for, scope, rule, by, at},
          scopes: [{scope: pattern, label: str, rule: str}],   narrow to broad; only these or narrower edits count
          limit: str}   the state of the limit that is spent, "" where the policy asks; its scopes are this act, or as much once more
Grant    {id, agent, session: id|null, ops, scope, verdict, for, rule, created, expires: s|null, last_used: s|null, uses, by}
Limit    {limit, agent, session ("" = all of the agent's), kind, used, held (of that, by enforcement points), spent (bool),
          amount, seconds, source, text}   spend in millionths
Entry    {seq, time, actor, agent, session, pid, proc, exe, sha256, op, path, path2, verdict, outcome, rule, prompt, note, argv}
Given    {access_token, issued_token_type, token_type, expires_in, scope, authorization_details}   RFC 8693 2.2.1
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

MAX_LINE = 4 << 20
