"""The door of the server: what is refused before any route sees it, and the headers every answer carries.

A server on localhost is reachable from every web page the user has open. Two checks close that door: the Host header
must name this machine (a page on a domain that was re-pointed to 127.0.0.1 still sends its own name: DNS rebinding),
and so must Origin where a browser sends one. There is no CORS header, so no other page may read an answer."""

import json
from urllib.parse import urlsplit

from nanochat.serve.request import MAX_BODY, ApiError

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16 << 10

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: Guard(app, hosts) answers for `hosts` only (names without a port)."""

    def __init__(self, app, hosts: tuple[str, ...] = LOCAL_HOSTS):
        self.app, self.hosts = app, frozenset(host.lower() for host in hosts)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items() if k.encode() not in present]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refusal = self.refusal(scope["headers"])
        if refusal is None:
            return await self.app(scope, receive, send_with_headers)
        body = json.dumps(refusal.body()).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send_with_headers({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def refusal(self, headers: list[tuple[bytes, bytes]]) -> ApiError | None:
        """Why a request with these raw headers is turned away; None when it is welcome."""
        if len(headers) > MAX_HEADERS or sum(len(k) + len(v) for k, v in headers) > MAX_HEADER_BYTES:
            return ApiError(431, f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together are read")
        named = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(named) != 1 or _host(f"//{named[0]}") not in self.hosts:
            return ApiError(
                403, "this server answers only to its own name; open it as http://127.0.0.1", code="forbidden_host"
            )
        for name, value in headers:
            if name == b"origin" and _host(value.decode("latin-1")) not in self.hosts:
                return ApiError(403, "requests from other web sites are refused", code="forbidden_origin")
            if name == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BODY:
                return ApiError(413, f"the body is larger than {MAX_BODY} bytes", code="body_too_large")
        return None


def _host(url: str) -> str:
    """The host name in a URL, "" when there is none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
