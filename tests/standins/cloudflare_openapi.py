"""What Cloudflare's published OpenAPI text says of DNS records, as JSON Schema: names, required parts, bounds.

Written down from github.com/cloudflare/api-schemas, openapi.json at 2031b91d7b1b112fb610d4196cb7b6a26856b213 (2024-08-01): schemas
dns-records_dns_response_single, _dns_response_collection, _api-response-common, _api-response-common-failure, _result_info, _dns-record.
The whole text has four megabytes.
"""

from typing import Any

Schema = dict[str, Any]

VERBS = {"": {"GET", "POST"}, "/{id}": {"GET", "PUT", "PATCH", "DELETE"}}  # below /zones/{id}/dns_records
PER_PAGE = 100

_OCTET, _SHORT = {"type": "number", "minimum": 0, "maximum": 255}, {"type": "number", "minimum": 0, "maximum": 65535}
_TEXT = {"type": "string"}
_MESSAGE = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "integer", "minimum": 1000}, "message": _TEXT},
}
_MESSAGES = {"type": "array", "items": _MESSAGE, "uniqueItems": True}
_COMMON = {"type": "object", "required": ["success", "errors", "messages"], "properties": {"errors": _MESSAGES, "messages": _MESSAGES}}
_SUCCESS = {"allOf": [_COMMON, {"properties": {"success": {"const": True}}}]}
FAILURE: Schema = {
    "allOf": [_COMMON, {"required": ["result"], "properties": {"success": {"const": False}, "result": {"type": "null"}}}],
}

_DATA = {
    "SRV": {"port": _SHORT, "priority": _SHORT, "target": _TEXT, "weight": _SHORT},
    "CAA": {"flags": _OCTET, "tag": _TEXT, "value": _TEXT},
    "TLSA": {"certificate": _TEXT, "matching_type": _OCTET, "selector": _OCTET, "usage": _OCTET},
}
# What a body of each type must have; our own types only.
REQUIRED = {kind: ["type", "name", "data" if kind in _DATA else "content"] for kind in ("A", "AAAA", "CNAME", "TXT", "MX", *_DATA)}
REQUIRED["MX"].append("priority")


def request(kind: str) -> Schema:
    """The body of a POST or PUT of a record of this type, without any part that the text does not know."""
    parts = {
        "type": {"const": kind},
        "name": _TEXT | {"maxLength": 255},
        "content": _TEXT,
        "comment": _TEXT,
        "proxied": {"type": "boolean"},
    }
    parts |= {"ttl": {"anyOf": [{"type": "number", "minimum": 30, "maximum": 86400}, {"const": 1}]}, "priority": _SHORT}
    if kind in _DATA:
        parts["data"] = {"type": "object", "properties": _DATA[kind], "additionalProperties": False}
    return {"type": "object", "required": REQUIRED[kind], "properties": parts, "additionalProperties": False}


_RECORD = {
    "type": "object",
    "required": ["id", "type", "name", "content", "proxiable", "created_on", "modified_on"],
    "properties": {
        **{
            "id": _TEXT | {"maxLength": 32},
            "type": {"enum": list(REQUIRED)},
            "name": _TEXT,
            "content": _TEXT,
            "proxiable": {"type": "boolean"},
        },
        **{name: _TEXT | {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:"} for name in ("created_on", "modified_on")},
        **{"ttl": {"type": "number"}, "proxied": {"type": "boolean"}, "priority": _SHORT, "comment": _TEXT},
    },
}
_INFO = {"type": "object", "properties": {name: {"type": "number"} for name in ("count", "page", "per_page", "total_count")}}
ONE: Schema = {"allOf": [_SUCCESS, {"required": ["result"], "properties": {"result": _RECORD}}]}
GONE: Schema = {"required": ["result"], "properties": {"result": {"required": ["id"]}}}
LISTING: Schema = {
    "allOf": [
        _SUCCESS,
        {
            "required": ["result", "result_info"],
            "properties": {"result": {"type": "array", "items": _RECORD}, "result_info": {**_INFO, "required": list(_INFO["properties"])}},
        },
    ]
}
