"""The part of a PodTemplateSpec that the API server checks before the operator sees a job; the rest passes untouched.

What is wrong with the rest the API server says when the first Pod is created; it ends in a condition of the job.
"""

from __future__ import annotations

from pydantic import JsonValue

from sternpost_operator.resources.reserved import NAME_PREFIX

MAX_CONTAINERS = 32
MAX_VOLUMES = 256
"""Bounds are needed for the API server to accept the rules below: they limit what those can cost."""


def _optional(schema: JsonValue) -> JsonValue:
    """A field that may be left out, and then stays so."""
    return {"anyOf": [schema, {"type": "null"}]}


def _named(most: int, item: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """A list whose entries are told apart by name."""
    return {
        "type": "array",
        "maxItems": most,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, **item},
    }


_NAME: JsonValue = {"type": "string", "minLength": 1, "maxLength": 63}
_STRINGS: JsonValue = {"type": "array", "maxItems": 1024, "items": {"type": "string"}}
_CONTAINER: dict[str, JsonValue] = {
    "required": ["name", "image"],
    "properties": {
        "name": _NAME,
        "image": {"type": "string", "minLength": 1, "maxLength": 1024},
        "command": _optional(_STRINGS),
    },
}
_SPEC: JsonValue = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "required": ["containers"],
    "properties": {
        "containers": {**_named(MAX_CONTAINERS, _CONTAINER), "minItems": 1},
        "initContainers": _optional(_named(MAX_CONTAINERS, _CONTAINER)),
        "volumes": _optional(_named(MAX_VOLUMES, {"required": ["name"], "properties": {"name": _NAME}})),
        "restartPolicy": _optional({"type": "string", "maxLength": 64}),
        "hostNetwork": _optional({"type": "boolean"}),
        "nodeName": _optional({"type": "string", "maxLength": 253}),
        "hostname": _optional({"type": "string", "maxLength": 253}),
        "subdomain": _optional({"type": "string", "maxLength": 253}),
        "terminationGracePeriodSeconds": _optional({"type": "integer", "minimum": 0}),
    },
}


def _left_out(field: str, why: str) -> JsonValue:
    return {
        "rule": f"!has(self.spec.{field}) || self.spec.{field} == ''",
        "message": f"spec.{field} must be left out: {why}",
    }


def _not_ours(field: str) -> JsonValue:
    return {
        "rule": f"!has(self.spec.{field}) || self.spec.{field}.all(e, !e.name.startsWith('{NAME_PREFIX}'))",
        "message": f"spec.{field}: names that begin with {NAME_PREFIX} are Sternpost's own",
    }


TEMPLATE_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "required": ["spec"],
    "properties": {"spec": _SPEC},
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
        {
            "rule": "!has(self.spec.initContainers) || self.spec.initContainers.all(c, c.name != 'trainer')",
            "message": "spec.initContainers: trainer must be one of spec.containers",
        },
        {
            "rule": "!has(self.spec.restartPolicy) || self.spec.restartPolicy == 'OnFailure'",
            "message": "spec.restartPolicy must be OnFailure or left out: the launcher is restarted in its Pod",
        },
        {
            "rule": "!has(self.spec.hostNetwork) || !self.spec.hostNetwork",
            "message": "spec.hostNetwork must be left out: two workers of a node would need the same ports",
        },
        _left_out("nodeName", "it would bypass the scheduler, and no node could be left; use nodeSelector or affinity"),
        _left_out("hostname", "Sternpost sets it to the Pod's name, by which the workers find each other"),
        _left_out("subdomain", "Sternpost sets it to the name of the job's Service"),
        _not_ours("containers"),
        _not_ours("initContainers"),
        _not_ours("volumes"),
    ],
}
