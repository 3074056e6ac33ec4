"""A stand-in for a model's server: it has an agent carry out a script, one tool call after another.

Speaks, as far as agents need it, Anthropic's messages, OpenAI's chat completions and responses, and Gemini's
generateContent, streamed or whole. It is the scripted half of a conversation: a step is chosen by how many results of
tools the request holds, and said in terms of the tools that the request offers. What the agent sent goes to a file.

    python model_server.py SCRIPT LOG [HOST:PORT]     prints the port; ends when its standard input does

SCRIPT is JSON: a list of [kind, argument…]: ["read", FILE], ["write", FILE, TEXT], ["shell", COMMAND], ["say", TEXT].
LOG gets one JSON object a request: {path, headers, body}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

MAX_BODY = 64 << 20  # bytes of one request: a long conversation with all tools' schemas is a few
_FILE_KEYS = ("file_path", "absolute_path", "filePath", "path")
_TOOLS = {
    "read": ("Read", "read_file", "read"),
    "write": ("Write", "write_file", "write"),
    "shell": ("Bash", "run_shell_command", "exec_command", "shell_command", "shell", "bash"),
}
_EXTRA = {"description": "a step of the script", "timeout_ms": 120_000, "is_background": False}


def tools_of(body: Json) -> dict[str, Json]:
    """Return the tools that a request offers: name → JSON schema of the arguments."""
    found: dict[str, Json] = {}
    for tool in body.get("tools") or []:
        for one in tool.get("functionDeclarations") or [tool.get("function") or tool]:
            if name := one.get("name"):
                schema = one.get("parameters") or one.get("parametersJsonSchema") or one.get("input_schema")
                found[name] = schema or {}
    return found


def results_in(body: Json) -> int:
    """Return how many results of tools the conversation holds."""
    n = 0
    for item in body.get("messages") or body.get("input") or body.get("contents") or []:
        if isinstance(item, str):
            continue
        if item.get("role") == "tool" or str(item.get("type", "")).endswith("_call_output"):
            n += 1
        parts = item.get("parts") or (item["content"] if isinstance(item.get("content"), list) else [])
        n += sum(
            1
            for p in parts
            if isinstance(p, dict) and (p.get("type") == "tool_result" or "functionResponse" in p)
        )
    return n


def call_for(step: list[str], tools: dict[str, Json]) -> tuple[str, Json] | None:
    """Return the tool and the arguments that do ``step``; None when nothing offered does."""
    kind, *rest = step
    name = next((t for t in _TOOLS.get(kind, ()) if t in tools), None)
    if name is None and kind in ("read", "write"):
        command = f"cat {rest[0]}" if kind == "read" else f"printf '%s' '{rest[1]}' > {rest[0]}"
        return call_for(["shell", command], tools)
    if name is None:
        return None
    wanted = tools[name].get("properties") or {}
    if kind == "shell":
        key = next((k for k in ("command", "cmd") if k in wanted), "command")
        is_list = (wanted.get(key) or {}).get("type") == "array"
        arguments: Json = {key: ["bash", "-c", rest[0]] if is_list else rest[0]}
    else:
        arguments = {next((k for k in _FILE_KEYS if k in wanted), "path"): rest[0]}
        if kind == "write":
            arguments["content"] = rest[1]
    for key in tools[name].get("required") or []:
        if key not in arguments:
            arguments[key] = _EXTRA.get(key, "a step of the script")
    return name, arguments


class Turn:
    """One answer: text, or one call of a tool."""

    def __init__(self, script: list[list[str]], body: Json) -> None:
        tools, at = tools_of(body), results_in(body)
        self.model = str(body.get("model", "stand-in"))
        self.id = f"call_{at}"
        self.text, self.call = "done", None
        step = script[at] if at < len(script) else ["say", "done"]
        if not tools and step[0] != "say":
            self.text = fenced(step)
        elif step[0] == "say":
            self.text = step[1]
        else:
            self.call = call_for(step, tools)
            if self.call is None:
                self.text = f"no tool here does {step[0]}; offered: {', '.join(tools)}"

    @property
    def arguments(self) -> str:
        assert self.call is not None
        return json.dumps(self.call[1])


def fenced(step: list[str]) -> str:
    """Return ``step`` as agents without tools read it: a fenced block of shell, or a whole file."""
    if step[0] == "write":
        return f"{os.path.basename(step[1])}\n```\n{step[2]}\n```\n"
    command = step[1] if step[0] == "shell" else f"cat {step[1]}"
    return f"```bash\n{command}\n```\n"


USAGE = {"input_tokens": 10, "output_tokens": 10}


def anthropic(turn: Turn) -> Iterator[tuple[str, Json]]:
    """Yield the events of a streamed message."""
    message: Json = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": turn.model, "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": USAGE,
    }  # fmt: skip
    yield "message_start", {"message": message}
    if turn.call is None:
        yield "content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": turn.text}}
    else:
        block = {"type": "tool_use", "id": "toolu_" + turn.id, "name": turn.call[0], "input": {}}
        yield "content_block_start", {"index": 0, "content_block": block}
        delta = {"type": "input_json_delta", "partial_json": turn.arguments}
        yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    reason = "tool_use" if turn.call else "end_turn"
    yield "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": USAGE}
    yield "message_stop", {}


def anthropic_whole(turn: Turn) -> Json:
    block: Json = {"type": "text", "text": turn.text}
    if turn.call is not None:
        block = {"type": "tool_use", "id": "toolu_" + turn.id, "name": turn.call[0], "input": turn.call[1]}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": turn.model, "content": [block],
        "stop_reason": "tool_use" if turn.call else "end_turn", "stop_sequence": None, "usage": USAGE,
    }  # fmt: skip


def chat_message(turn: Turn) -> Json:
    if turn.call is None:
        return {"role": "assistant", "content": turn.text}
    function = {"name": turn.call[0], "arguments": turn.arguments}
    call = {"index": 0, "id": turn.id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def chat(turn: Turn, *, streamed: bool) -> list[Json]:
    """Return a chat completion: its chunks, or the one object."""
    reason = "tool_calls" if turn.call else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    base = {"id": "chatcmpl-1", "created": 1, "model": turn.model}
    if not streamed:
        choice = {"index": 0, "message": chat_message(turn), "finish_reason": reason}
        return [base | {"object": "chat.completion", "choices": [choice], "usage": usage}]
    kind = {"object": "chat.completion.chunk"}
    first = {"index": 0, "delta": chat_message(turn), "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": reason}
    return [base | kind | {"choices": [first]}, base | kind | {"choices": [last], "usage": usage}]


def responses(turn: Turn) -> Iterator[tuple[str, Json]]:
    """Yield the events of a streamed response."""
    if turn.call is None:
        content = [{"type": "output_text", "text": turn.text, "annotations": []}]
        item: Json = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    else:
        item = {
            "type": "function_call", "id": "fc_" + turn.id, "call_id": turn.id, "status": "completed",
            "name": turn.call[0], "arguments": turn.arguments,
        }  # fmt: skip
    response: Json = {
        "id": "resp_1",
        "object": "response",
        "status": "in_progress",
        "model": turn.model,
        "output": [],
    }
    yield "response.created", {"response": response}
    yield "response.output_item.added", {"output_index": 0, "item": item | {"status": "in_progress"}}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    usage = USAGE | {"total_tokens": 20, "input_tokens_details": None, "output_tokens_details": None}
    done = response | {"status": "completed", "output": [item], "usage": usage}
    yield "response.completed", {"response": done}


def gemini(turn: Turn) -> Json:
    """Return a generateContent response."""
    part: Json = {"text": turn.text}
    if turn.call is not None:
        part = {"functionCall": {"name": turn.call[0], "args": turn.call[1]}}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": turn.model}


class Handler(BaseHTTPRequestHandler):
    """Answers the endpoints; everything else is 404 with a JSON body."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._note({})
        models = [{"id": "stand-in", "object": "model", "owned_by": "nobody"}]
        self._whole(
            {"object": "list", "data": models} if self.path.split("?")[0].endswith("/models") else None
        )

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length <= MAX_BODY else b""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            raw = self._chunks()
        try:
            body: Json = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        self._note(body)
        path = self.path.split("?")[0]
        turn = Turn(self.server.script, body) if isinstance(body, dict) else None
        if turn is None:
            self._whole(None)
        elif path.endswith("/messages"):
            if body.get("stream"):
                self._events((name, {"type": name} | data) for name, data in anthropic(turn))
            else:
                self._whole(anthropic_whole(turn))
        elif path.endswith("/count_tokens"):
            self._whole({"input_tokens": 10})
        elif path.endswith("/chat/completions"):
            answer = chat(turn, streamed=bool(body.get("stream")))
            if body.get("stream"):
                self._events([("", one) for one in answer], end="data: [DONE]\n\n")
            else:
                self._whole(answer[0])
        elif path.endswith("/responses"):
            self._events((name, {"type": name} | data) for name, data in responses(turn))
        elif path.endswith(":streamGenerateContent"):
            self._events([("", gemini(turn))])
        elif path.endswith(":generateContent"):
            self._whole(gemini(turn))
        elif path.endswith(":countTokens"):
            self._whole({"totalTokens": 10})
        else:
            self._whole(None)

    def _chunks(self) -> bytes:
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
            if len(out) > MAX_BODY:
                return b""
        self.rfile.readline()
        return out

    def _note(self, body: Json) -> None:
        entry = {"path": self.path, "headers": dict(self.headers.items()), "body": body}
        with self.server.lock, open(self.server.log, "a", encoding="utf-8") as f:
            f.write(json.dumps(entry) + "\n")

    def _whole(self, answer: Json | None) -> None:
        raw = json.dumps(
            answer if answer is not None else {"error": {"message": "not here", "type": "not_found"}}
        ).encode()
        self.send_response(200 if answer is not None else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _events(self, events: Iterator[tuple[str, Json]] | list[tuple[str, Json]], end: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, data in events:
            head = f"event: {name}\n" if name else ""
            self.wfile.write(f"{head}data: {json.dumps(data)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(end.encode())
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """The listening server with its script and log."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], script: list[list[str]], log: str) -> None:
        super().__init__(address, Handler)
        self.script = script
        self.log = log
        self.lock = threading.Lock()


def main() -> None:
    script, log = json.loads(sys.argv[1]), sys.argv[2]
    host, _, port = (sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1:0").rpartition(":")
    server = Server((host, int(port)), script, log)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
