"""The part of a PodTemplateSpec that the API server checks before the operator sees a job; the rest passes untouched."""

from __future__ import annotations

from pydantic import JsonValue

MAX_CONTAINERS = 32
"""A bound is needed for the API server to accept the rules below: it limits what they can cost."""

_CONTAINER: JsonValue = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 63},
        "command": {"type": "array", "maxItems": 1024, "items": {"type": "string"}},
    },
}

TEMPLATE_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_CONTAINERS,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": _CONTAINER,
                }
            },
        }
    },
    "x-kubernetes-validations": [
        {"rule": "self == oldSelf", "message": "template cannot be changed; delete the job and create it anew"},
        {
            "rule": "self.spec.containers.exists(c, c.name == 'trainer')",
            "message": "spec.containers needs a container named trainer; it runs the training",
        },
        {
            "rule": "self.spec.containers.all(c, c.name != 'trainer' || (has(c.command) && size(c.command) > 0))",
            "message": "the container trainer needs a command; the launcher starts it, and cannot know the image's own",
        },
    ],
}
