"""A stand-in for the DNS part of Cloudflare's API, on loopback, with the rules that edits of a zone meet.

Its answers have the published form (cloudflare_openapi.py, which names the text). The codes are those of the live API, and so is
971, which the published form, with codes from 1000, does not allow. A listing is paged; a token and a zone are known or they are not.

Not here: other zones' settings, DNSSEC, NS records, record tags, quotas, PATCH, and the batch API, which the provider does not use.
"""

import json
import re
import threading
import uuid
from collections import deque
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]
ADDRESSES = {"A", "AAAA"}
PER_PAGE = 100  # the API's default


class RefusalError(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Cloudflare:
    """`zones[id][record id]` is a row as the API shows it; `faults` are HTTP statuses that the next calls get instead of an answer."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex + "abcdef01"  # 40 characters, as a real one
        self.zones: dict[str, dict[str, Row]] = {}
        self.names: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []  # verb, and `name type content` of what it was about
        self.faults: deque[int] = deque()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/client/v4"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def zone(self, name: str) -> str:
        """The id of a new, empty zone."""
        zone_id = uuid.uuid4().hex
        self.zones[zone_id], self.names[zone_id] = {}, name
        return zone_id

    def add(self, zone_id: str, **row: Any) -> str:
        """The id of a record that someone else made in the zone."""
        return self._store(zone_id, uuid.uuid4().hex, row)["id"]

    def texts(self, zone_id: str) -> list[str]:
        """`name type [priority] content` of each record, sorted."""
        return sorted(_text(row) for row in self.zones[zone_id].values())

    def written(self) -> list[tuple[str, str]]:
        """The calls that changed something, or tried to."""
        return [call for call in self.calls if call[0] != "GET"]

    def answer(self, verb: str, path: str, token: str | None, body: Row | None) -> Any:
        """The result of a call, and for a listing its result_info. Raises RefusalError."""
        if self.faults:
            raise RefusalError(self.faults.popleft(), 971, "Please wait and consider throttling your request speed")
        url = urlsplit(path)
        if token is None or not re.fullmatch(r"[A-Za-z0-9_-]{40}", token):
            raise RefusalError(400, 6003, "Invalid request headers")
        if token != self.token:
            raise RefusalError(403, 10000, "Authentication error")
        parts = url.path.removeprefix("/client/v4/").split("/")
        if len(parts) < 3 or parts[0] != "zones" or parts[2] != "dns_records":
            raise RefusalError(404, 7000, "No route for that URI")
        zone_id, record_id = parts[1], parts[3] if len(parts) > 3 else None
        if zone_id not in self.zones:
            raise RefusalError(
                404, 7003, f"Could not route to /client/v4/zones/{zone_id}/dns_records, perhaps your object identifier is invalid?"
            )
        rows = self.zones[zone_id]
        if record_id and record_id not in rows:
            raise RefusalError(404, 81044, "Record does not exist.")
        self.calls.append((verb, _text(body or rows.get(record_id or "", {}))))
        if verb == "GET" and record_id:
            return rows[record_id], None
        if verb == "GET":
            return _page(list(rows.values()), parse_qs(url.query))
        if verb == "POST" and not record_id:
            return self._store(zone_id, uuid.uuid4().hex, body or {}), None
        if verb == "PUT" and record_id:
            return self._store(zone_id, record_id, body or {}), None
        if verb == "DELETE" and record_id:
            del rows[record_id]
            return {"id": record_id}, None
        raise RefusalError(405, 10405, "Method not allowed")

    def _store(self, zone_id: str, record_id: str, body: Row) -> Row:
        row = _normal(record_id, body)
        others = [other for id_, other in self.zones[zone_id].items() if id_ != record_id and other["name"] == row["name"]]
        if any((other["type"], other["content"]) == (row["type"], row["content"]) for other in others):
            raise RefusalError(400, 81058, "An identical record already exists.")
        kinds = {other["type"] for other in others}
        if row["type"] == "CNAME" and kinds & (ADDRESSES | {"CNAME"}):
            raise RefusalError(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if row["type"] in ADDRESSES and "CNAME" in kinds:
            raise RefusalError(400, 81054, "A CNAME record with that host already exists.")
        if row["name"] != self.names[zone_id] and not row["name"].endswith(f".{self.names[zone_id]}"):
            row["name"] = f"{row['name']}.{self.names[zone_id]}"  # the API takes a foreign name for a relative one
        self.zones[zone_id][record_id] = row
        return row

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                bearer = self.headers.get("Authorization", "")
                with api._lock:
                    try:
                        result, info = api.answer(self.command, self.path, bearer.removeprefix("Bearer ") or None, body)
                        paged = {} if info is None else {"result_info": info}
                        self.reply(200, {"result": result, "success": True, "errors": [], "messages": []} | paged)
                    except RefusalError as refusal:
                        error = {"code": refusal.code, "message": refusal.message}
                        self.reply(refusal.status, {"result": None, "success": False, "errors": [error], "messages": []})

            do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815 - http.server's names

            def reply(self, status: int, answer: Row) -> None:
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _normal(record_id: str, body: Row) -> Row:
    """The row that the API makes of a body: names in lower case, contents of SRV, CAA and TLSA from their parts."""
    if not body.get("type") or not body.get("name") or not ("content" in body or "data" in body):
        raise RefusalError(400, 9005, "Content for record is invalid.")
    kind, data = body["type"], body.get("data") or {}
    if kind == "MX" and "priority" not in body:
        raise RefusalError(400, 9100, "DNS Record Priority is invalid.")
    if kind in {"SRV", "CAA", "TLSA"} and not data:
        raise RefusalError(400, 9101, f"{kind} needs data")
    content = body.get("content")
    if kind == "SRV":
        content = f"{int(data['weight'])}\t{int(data['port'])}\t{data['target']}"
    elif kind == "CAA":
        content = f'{int(data["flags"])}\t{data["tag"]}\t"{data["value"]}"'
    elif kind == "TLSA":
        content = f"{int(data['usage'])}\t{int(data['selector'])}\t{int(data['matching_type'])}\t{data['certificate']}"
    elif kind in {"CNAME", "MX"} and content != ".":
        content = str(content).rstrip(".").lower()
    if body.get("proxied") and body.get("ttl") != 1:
        raise RefusalError(400, 9021, "Invalid TTL. Must be 1 for proxied records.")
    if kind == "CNAME" and content == body["name"].lower():
        raise RefusalError(400, 9007, "Content for CNAME record is invalid: it points to itself.")
    row = {"id": record_id, "name": body["name"].rstrip(".").lower(), "type": kind, "content": content, "data": data or None}
    row |= {name: body.get(name) for name in ("priority", "comment")}
    row |= {"ttl": body.get("ttl") or 1, "proxied": bool(body.get("proxied")), "proxiable": kind in ADDRESSES | {"CNAME"}}
    row |= dict.fromkeys(("created_on", "modified_on"), datetime.now(UTC).isoformat())
    return {name: value for name, value in row.items() if value is not None}


def _page(rows: list[Row], query: dict[str, list[str]]) -> tuple[list[Row], Row]:
    size, page = int(query.get("per_page", [str(PER_PAGE)])[0]), int(query.get("page", ["1"])[0])
    shown = rows[(page - 1) * size : page * size]
    return shown, {"page": page, "per_page": size, "count": len(shown), "total_count": len(rows), "total_pages": -(-len(rows) // size)}


def _text(row: Row) -> str:
    content = row.get("content") or " ".join(str(part) for part in (row.get("data") or {}).values())
    priority = f"{int(row['priority'])} " if row.get("type") == "MX" and "priority" in row else ""
    return f"{row.get('name', '')} {row.get('type', '')} {priority}{content}".strip()
