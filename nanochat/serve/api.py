"""The web server: a chat page, and the part of OpenAI's API that chat programs use.

    app = create_app(engine, "nanochat-toy")       # any ASGI server runs it
    serve(run, port=8000)                          # or this one does, on this machine only

    GET  /                       the chat page
    GET  /health                 {"status": "ok", …}; answers while the engine works
    GET  /v1/models              the one model
    POST /v1/chat/completions    an answer, whole or as server-sent events

The engine has one thread; requests wait for it in line. The event loop only passes pieces on, so the server stays
awake. A client that goes away ends its answer at the next token. Errors have OpenAI's form; the user's mistakes are
4xx. Beyond OpenAI's fields there are `top_k` in the request, `parts` in a message (and `part` in a delta) where the
model called a tool, and `context_length` in the list of models."""

import asyncio
import base64
import hashlib
import json
import logging
import re
import secrets
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nanochat.runtime import Run, UserError, say
from nanochat.sandbox import calculate
from nanochat.serve.guard import LOCAL_HOSTS, Guard
from nanochat.serve.reply import Piece, Reply, open_engine
from nanochat.serve.request import MAX_BODY, ApiError, ChatRequest, parse, to_conversation

DEFAULT_MAX_TOKENS = 512
MAX_WAITING = 64  # requests in line for the engine, the one it works on included
HEARTBEAT = 15.0  # seconds of silence after which a stream sends a comment, so that no proxy closes it
HANG_UP = {"connection": "close"}  # with an answer that comes before the whole request has
END = object()

log = logging.getLogger(__name__)


class Job:
    """The generation of one request. It runs in the engine's thread; iterate over it in the event loop."""

    def __init__(self, items: Iterable):
        self.items, self.stopped, self.future = items, threading.Event(), None
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()

    def run(self) -> None:
        """In the engine's thread: hand over one item after the other until the end, or until nobody wants more."""
        try:
            with closing(iter(self.items)) as items:
                while not self.stopped.is_set() and (item := next(items, END)) is not END:
                    self._put(item)
            self._put(END)
        except Exception as error:  # noqa: BLE001  (raised again where the items are read)
            self._put(error)

    def stop(self, problem: ApiError | None = None) -> None:
        """End this answer, or take it out of the line; who still waits for it gets the `problem`."""
        self.stopped.set()
        self.future.cancel()
        self.queue.put_nowait(problem or END)

    def _put(self, item) -> None:
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:  # the loop is closed: the server has gone
            self.stopped.set()

    async def __aiter__(self) -> AsyncIterator:
        """The items; None stands for HEARTBEAT seconds without one. Raises what the generation raised."""
        while True:
            try:
                item = await asyncio.wait_for(self.queue.get(), HEARTBEAT)
            except (TimeoutError, asyncio.TimeoutError):
                item = None
            if item is END:
                return
            if isinstance(item, Exception):
                raise item
            yield item


class Desk:
    """The line in front of the engine: one thread, first come, first served."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(1, "engine")
        self.jobs: set[Job] = set()

    def submit(self, items: Iterable) -> Job:
        """Queue a generation. Raises ApiError 503 when the line is full."""
        if len(self.jobs) >= MAX_WAITING:
            raise ApiError(
                503, "the server is busy; try again in a few seconds", code="overloaded", headers={"retry-after": "5"}
            )
        job = Job(items)
        self.jobs.add(job)
        job.future = self.pool.submit(job.run)
        job.future.add_done_callback(lambda _: self.jobs.discard(job))
        return job

    def hang_up(self) -> None:
        """End all answers, now: the server is about to go. May be called from any thread, and from a signal handler."""
        for job in list(self.jobs):
            job.stopped.set()
            job.loop.call_soon_threadsafe(job.stop, ApiError(503, "the server is shutting down", code="shutting_down"))


class EventStream(Response):
    """A text/event-stream that ends its job when the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], job: Job):
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self.events, self.job = events, job

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        watcher = asyncio.create_task(stop_when_gone(receive, self.job))
        try:
            async for event in self.events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.job.stop()
            watcher.cancel()


async def stop_when_gone(receive, job: Job) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    job.stop()


def create_app(engine, name: str, hosts: tuple[str, ...] = LOCAL_HOSTS) -> FastAPI:
    """The server for one engine (with `stream`, `tokenizer` and `config.sequence_len`). `name` is the model's name;
    `hosts` are the host names it answers to."""
    desk, created, context = Desk(), int(time.time()), engine.config.sequence_len
    page = Path(__file__).with_name("page.html").read_text("utf-8")
    page_headers = {"content-security-policy": page_policy(page)}

    @asynccontextmanager
    async def lifespan(app):
        yield
        desk.hang_up()
        desk.pool.shutdown()

    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = desk
    app.add_middleware(Guard, hosts=hosts)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError):
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException):
        message = f"{error.detail}: {request.method} {request.url.path[:100]}"
        return JSONResponse(ApiError(error.status_code, message).body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception):
        return JSONResponse(ApiError(500, "the server failed; its log says why").body(), 500)

    @app.get("/")
    async def show_page():
        return HTMLResponse(page, headers=page_headers)

    @app.get("/health")
    async def health():
        return {"status": "ok", "model": name, "running": min(1, len(desk.jobs)), "waiting": max(0, len(desk.jobs) - 1)}

    model = {"id": name, "object": "model", "created": created, "owned_by": "nanochat", "context_length": context}

    @app.get("/v1/models")
    async def models():
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{model_id:path}")
    async def one_model(model_id: str):
        check_model(model_id)
        return model

    def check_model(wanted: str | None) -> None:
        if wanted not in (None, name):
            raise ApiError(404, f"this server has one model, {name}", "model", "model_not_found")

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        ask = parse(await read_body(request))
        check_model(ask.model)
        prompt = await run_in_threadpool(engine.tokenizer.render_for_completion, to_conversation(ask))
        if len(prompt) >= context:
            message = f"the conversation has {len(prompt)} tokens, the context window {context}; make it shorter"
            raise ApiError(400, message, "messages", "context_length_exceeded")
        replies = [Reply(engine, prompt, tool=calculate, **one) for one in settings(ask, context - len(prompt))]
        about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        job = desk.submit(in_turn(replies))
        if ask.stream:
            with_usage = ask.stream_options is not None and ask.stream_options.include_usage
            return EventStream(sse(job, replies, about, with_usage), job)
        return await whole(request, job, replies, about)

    return app


async def read_body(request: Request) -> bytes:
    """The body of a JSON request; ApiError, before it is read whole, when it is too large or something else."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the request as content-type application/json", headers=HANG_UP)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise ApiError(413, f"the body is larger than {MAX_BODY} bytes", code="body_too_large", headers=HANG_UP)
    except ClientDisconnect:
        raise ApiError(400, "the body ended early") from None
    return bytes(body)


def settings(ask: ChatRequest, room: int) -> Iterator[dict]:
    """How to sample each of the request's n choices; `room` tokens are left in the context. With equal seeds choice
    i is the same whatever n is, streamed or not."""
    seed = secrets.randbelow(2**31) if ask.seed is None else ask.seed
    wanted = ask.max_completion_tokens or ask.max_tokens or DEFAULT_MAX_TOKENS
    for i in range(ask.n or 1):
        yield {
            "max_tokens": min(wanted, room),
            "temperature": 1.0 if ask.temperature is None else ask.temperature,
            "top_k": ask.top_k or None,
            "top_p": ask.top_p,
            "seed": seed + i,
            "stop": tuple(ask.stop),
        }


def in_turn(replies: list[Reply]) -> Iterator[tuple[int, Piece | None]]:
    """(number of the choice, piece) for one choice after the other; the piece None says that the choice is finished."""
    for index, reply in enumerate(replies):
        for piece in reply:
            yield index, piece
        yield index, None


def usage(replies: list[Reply]) -> dict:
    prompt, completion = len(replies[0].prompt), sum(reply.completion_tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def whole(request: Request, job: Job, replies: list[Reply], about: dict) -> Response:
    """The answer as one JSON object, once it is finished."""
    watcher = asyncio.create_task(stop_when_gone(request.receive, job))
    try:
        async for _ in job:
            pass
    except ApiError:
        raise
    except Exception:
        log.exception("answer %s failed", about["id"])
        raise ApiError(500, "the server failed; its log says why") from None
    finally:
        job.stop()
        watcher.cancel()
    choices = []
    for index, reply in enumerate(replies):
        message = {"role": "assistant", "content": reply.text}
        if any(part["type"] != "text" for part in reply.parts):
            message["parts"] = reply.parts
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reply.finish_reason})
    return JSONResponse({**about, "object": "chat.completion", "choices": choices, "usage": usage(replies)})


async def sse(job: Job, replies: list[Reply], about: dict, with_usage: bool) -> AsyncIterator[bytes]:
    """The answer as server-sent events: a chunk with the role for every choice, the pieces, a chunk with the finish
    reason, the usage if asked for, [DONE]."""

    def chunk(index: int, delta: dict, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event(
            {**about, "object": "chat.completion.chunk", "choices": [choice], **({"usage": None} if with_usage else {})}
        )

    for index in range(len(replies)):
        yield chunk(index, {"role": "assistant", "content": ""})
    try:
        async for item in job:
            if item is None:
                yield b": the engine is at work\n\n"
                continue
            index, piece = item
            if piece is None:
                yield chunk(index, {}, replies[index].finish_reason)
            elif piece.kind == "text":
                yield chunk(index, {"content": piece})
            else:
                yield chunk(index, {"part": {"type": piece.kind, "text": piece}})
    except ApiError as error:
        yield event(error.body())
        return
    except Exception:  # the status line is long gone; the error goes where the text went
        log.exception("answer %s failed", about["id"])
        yield event(ApiError(500, "the server failed in the middle of the answer; its log says why").body())
        return
    if with_usage:
        yield event({**about, "object": "chat.completion.chunk", "choices": [], "usage": usage(replies)})
    yield b"data: [DONE]\n\n"


def event(value: dict) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def page_policy(page: str) -> str:
    """The page's content security policy: its own script and style, known by their hashes, its own server, nothing
    else."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in blocks)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def serve(run: Run, port: int = 8000, stage: str | None = None) -> None:
    """Serve the newest model of a run (or the one of `stage`) on http://127.0.0.1:port until Ctrl-C. Port 0 takes a
    free one.

    Raises UserError when the run has no model, or the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen on port {port} ({getattr(error, 'strerror', None) or error}); choose another with --port"
        ) from None
    app = create_app(open_engine(run, stage), f"nanochat-{run.name}")
    say(f"chat page and API at http://127.0.0.1:{listener.getsockname()[1]}  (Ctrl-C ends it)")
    try:
        Server(server_config(app)).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn has shut down in order, and passes the signal on
        pass


class Server(uvicorn.Server):
    """uvicorn, told to end running answers at the first Ctrl-C instead of waiting for them."""

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        self.config.app.state.desk.hang_up()


def server_config(app) -> uvicorn.Config:
    """How uvicorn runs the app: little patience with idle and oversized connections, and no log of what people say."""
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=32 << 10,
        http="h11",
        ws="none",
    )
