"""The JSON Schema (draft 2020-12) of policy files, for editors."""

from __future__ import annotations

from typing import Any

from remit_policy.document import Document
from remit_policy.model import FILE_OPS

SCHEMA_ID = "https://remit.dev/schema/policy-1.json"


def schema() -> dict[str, Any]:
    """Return the schema of policy documents of version 1."""
    made = Document.model_json_schema(by_alias=True)
    files = made["$defs"]["Files"]
    rule = {"$ref": "#/$defs/FileRule"}
    ops = "|".join(FILE_OPS)
    files["properties"] = dict.fromkeys(FILE_OPS, rule)
    files["patternProperties"] = {f"^({ops})( ({ops}))+$": rule}
    net = made["$defs"]["Net"]
    hosts = net["properties"].pop("requests")
    net["patternProperties"] = {r"[.:]|^\*$|^localhost": hosts["additionalProperties"]}
    for model in made["$defs"].values():
        model.get("properties", {}).pop("protected", None)  # for the built-in packs only
    for model in [name for name in made["$defs"] if name.endswith("Rule")]:
        made["$defs"][model]["anyOf"] = [{"required": [word]} for word in ("allow", "ask", "deny")]
    _drop_nulls(made)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **made,
        "title": "remit policy, version 1",
    }


def _drop_nulls(value: Any) -> None:
    """TOML has no null: an optional key is one that may be left out."""
    if isinstance(value, list):
        for item in value:
            _drop_nulls(item)
    if not isinstance(value, dict):
        return
    if value.get("default", 0) is None:
        del value["default"]
    choices = value.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        kept = [c for c in choices if c != {"type": "null"}]
        del value["anyOf"]
        if len(kept) == 1:
            value.update({k: v for k, v in kept[0].items() if k not in value})
        else:
            value["anyOf"] = kept
    for item in value.values():
        _drop_nulls(item)
