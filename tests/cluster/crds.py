"""The CRDs' schemas, made strict: an unknown key is an error where the schema lists the known ones."""

import copy
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

KINDS = {"RayJob": "rayjobs", "RayService": "rayservices", "RayCluster": "rayclusters"}


def folder() -> Path:
    """Where the schemas are; skips the test where they are not at hand."""
    found = Path(os.environ.get("LLUMI_SHARED", "../shared")) / "crds"
    if not found.is_dir():
        pytest.skip(f"CRD schemas are not at {found}; set LLUMI_SHARED")
    return found


def errors(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest, as ``path: message``."""
    path = folder() / f"{KINDS[document['kind']]}.v1.schema.json.gz"
    schema = strict(json.loads(gzip.decompress(path.read_bytes())))
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy that refuses unknown keys and does not ask for a required key that has a default."""
    schema = copy.deepcopy(schema)
    for node in nodes(schema):
        known = node.get("properties")
        if isinstance(known, dict):
            if not node.get("x-kubernetes-preserve-unknown-fields") and known:
                node.setdefault("additionalProperties", False)
            defaulted = {name for name, part in known.items() if isinstance(part, dict) and "default" in part}
            if isinstance(node.get("required"), list):
                node["required"] = [name for name in node["required"] if name not in defaulted]
        if node.get("x-kubernetes-int-or-string"):
            node.pop("type", None)
    metadata = schema["properties"]["metadata"]
    metadata.pop("additionalProperties", None)  # ObjectMeta, which a CRD's schema does not spell out
    return schema


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside a schema."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)
