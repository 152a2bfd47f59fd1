"""A web server that misbehaves as told. `server.script[path]` is a list of behaviours, one a request; then it behaves.

A behaviour is a function (handler, body, start): it answers the request for body[start:], where start is above 0 when the
request asked for a range of the very file that the server has.
"""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, path = self.server, self.path
        with server.lock:
            server.requests.append(path)
            todo = server.script.get(path, [])
            behave = todo.pop(0) if todo else whole
        body = server.files.get(path)
        if body is None and behave is whole:
            return status(404)(self, b"", 0)
        body = body or b""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.headers.get("If-Range") == etag(body) else 0
        self.close_connection = True
        try:
            if start >= len(body) > 0:
                return status(416)(self, body, start)
            behave(self, body, start)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def head(self, code, length, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": length, **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, piece):
        with self.server.lock:
            self.server.sent[self.path] = self.server.sent.get(self.path, 0) + len(piece)
        self.wfile.write(piece)
        self.wfile.flush()

    def log_message(self, *_):
        pass


def etag(body):
    return f'"{hashlib.sha256(body).hexdigest()[:24]}"'


def begin(handler, body, start, length=None, **headers):
    """Status line and headers as they should be."""
    fields = {"ETag": etag(body), "Content_Type": "application/octet-stream", **headers}
    if start:
        fields["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.head(206 if start else 200, len(body) - start if length is None else length, **fields)


def whole(handler, body, start):
    begin(handler, body, start)
    handler.send(body[start:])


def cut(at):
    """The connection ends after byte `at` of the file."""
    def behave(handler, body, start):
        begin(handler, body, start)
        handler.send(body[start:max(at, start)])
    return behave


def stall(at=0, seconds=5.0):
    """Nothing more comes after byte `at`."""
    def behave(handler, body, start):
        begin(handler, body, start)
        handler.send(body[start:at])
        handler.server.closing.wait(seconds)
    return behave


def slow(seconds):
    """The file in ten pieces with pauses."""
    def behave(handler, body, start):
        begin(handler, body, start)
        step = max(1, (len(body) - start) // 10)
        for i in range(start, len(body), step):
            handler.send(body[i:i + step])
            time.sleep(seconds / 10)
    return behave


def content(make, **headers):
    """200 with other bytes than the file's, honest about their length."""
    def behave(handler, body, start):
        other = make(body)
        begin(handler, body, 0, length=len(other), **headers)
        handler.send(other)
    return behave


def spliced(make):
    """The rest of another file, from a server that minds Range and not If-Range."""
    def behave(handler, body, start):
        other = make(body)
        handler.head(206, len(other) - start, ETag=etag(other), Content_Range=f"bytes {start}-{len(other) - 1}/{len(other)}")
        handler.send(other[start:])
    return behave


def flipped(body):
    return body[:len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1:]


def status(code, **headers):
    def behave(handler, body, start):
        handler.head(code, 0, **headers)
    return behave


def page(code=200):
    """A login page, as hotels have it."""
    def behave(handler, body, start):
        text = b"<!DOCTYPE html><html><body>Please log in</body></html>"
        handler.head(code, len(text), Content_Type="text/html; charset=utf-8")
        handler.send(text)
    return behave


def without_length(handler, body, start):
    """Close-delimited: where the body ends nobody says."""
    handler.head(200, None, Content_Type="application/octet-stream")
    handler.send(body)


def chunked(cut_at=None):
    """In pieces, each with its length, and an empty one at the end; that one is missing after a cut."""
    def behave(handler, body, start):
        handler.head(200, None, ETag=etag(body), Transfer_Encoding="chunked")
        for i in range(0, cut_at or len(body), 10_000):
            piece = body[i:i + 10_000]
            handler.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if cut_at is None:
            handler.send(b"0\r\n\r\n")
    return behave


@contextmanager
def serve(files):
    """A server of {"/name": bytes} on a free port; `url`, `requests`, `sent` (bytes by path) and `script`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.script, server.requests, server.sent = dict(files), {}, [], {}
    server.lock, server.closing = threading.Lock(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
