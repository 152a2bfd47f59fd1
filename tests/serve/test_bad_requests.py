"""Whatever a client sends, the answer is a 4xx in OpenAI's error form, and the server goes on."""

import json
import socket

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_fakes import NAME

from nanochat.serve.request import MAX_BODY, MAX_MESSAGES, ApiError, parse, to_conversation

HI = [{"role": "user", "content": "hi"}]
HUGE = 10**400


def post(url, content, **headers):
    return httpx.post(
        f"{url}/v1/chat/completions",
        content=content,
        headers={"content-type": "application/json", **headers},
        timeout=20,
    )


def check_refused(answer, status, param=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert "\n" not in error["message"] and len(error["message"]) < 300
    assert error["param"] == param
    assert "access-control-allow-origin" not in answer.headers
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def with_messages(*contents):
    return {"messages": [{"role": "user", "content": content} for content in contents]}


FIELDS = [  # (what is wrong in an otherwise good request, the field the answer names)
    *[({"messages": bad}, "messages") for bad in (None, [], {}, "hi", 5, True, HI * (MAX_MESSAGES + 1))],
    *[({"messages": [bad]}, "messages[0]") for bad in (None, "hi", 5, [], True)],
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    *[
        ({"messages": [{"role": bad, "content": "hi"}]}, "messages[0].role")
        for bad in ("tool", "function", "", "User", None, 5, ["user"], "user<|assistant_start|>")
    ],
    *[
        ({"messages": [{"role": "user", "content": bad}]}, "messages[0].content")
        for bad in (None, 5, True, {}, {"text": "hi"})
    ],
    ({"messages": [*HI, {"role": "assistant", "content": None}, *HI]}, "messages[1].content"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://example.com"}}]}
            ]
        },
        "messages[0].content[0].type",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
    ({"messages": [*HI, {"role": "assistant", "content": "hi"}]}, "messages"),
    ({"messages": [{"role": "system", "content": "hi"}]}, "messages"),
    ({"messages": [*HI, {"role": "system", "content": "hi"}]}, "messages[1].role"),
    (with_messages("a" * 32_001), "messages"),
    (with_messages(*["a" * 1000] * 33), "messages"),
    *[({"temperature": bad}, "temperature") for bad in (-0.1, 2.1, 999999, "1", True, [], {}, HUGE, -HUGE)],
    *[({"top_p": bad}, "top_p") for bad in (0, -1, 1.01, "0.5", False, [])],
    *[({"top_k": bad}, "top_k") for bad in (-1, 1.5, "5", True, HUGE, [])],
    *[
        ({name: bad}, name)
        for name in ("max_tokens", "max_completion_tokens")
        for bad in (0, -1, 1.5, 2.0, "5", True, HUGE, [], {})
    ],
    *[({"n": bad}, "n") for bad in (0, -1, 9, 10**9, 1.5, "2", True, [])],
    *[({"seed": bad}, "seed") for bad in (1.5, "5", True, HUGE, -HUGE, 2**63, [])],
    *[({"stop": bad}, "stop") for bad in (5, True, {}, ["a"] * 5)],
    *[({"stop": [bad]}, "stop[0]") for bad in ("", 5, None, True, "a" * 65, ["a"])],
    ({"stop": ""}, "stop[0]"),
    *[({"stream": bad}, "stream") for bad in ("true", 1, 0, [], {})],
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    *[({"stream": True, "stream_options": bad}, "stream_options") for bad in (True, [], "x")],
    ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    *[({"model": bad}, "model") for bad in (5, True, [], {}, "a" * 257)],
    *[
        ({name: bad}, name)
        for name, bad in {
            "logprobs": True,
            "top_logprobs": 5,
            "presence_penalty": 0.5,
            "frequency_penalty": -2,
            "logit_bias": {"5": 100},
            "tools": [{"type": "function"}],
            "response_format": {"type": "json_object"},
            "modalities": ["audio"],
        }.items()
    ],
]


@pytest.mark.parametrize(
    ("bad", "param"), FIELDS, ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else value
)
def test_a_wrong_field_is_named(bad, param):
    with pytest.raises(ApiError) as error:
        to_conversation(parse(json.dumps({"messages": HI, **bad}).encode()))
    assert error.value.status == 400
    assert error.value.param == param


def test_over_the_wire_too(url):
    for bad, param in FIELDS[::7]:
        check_refused(post(url, json.dumps({"messages": HI, **bad})), 400, param)
    check_refused(post(url, json.dumps({"messages": HI, "model": "gpt-4"})), 404, "model")


BODIES = {
    "empty": b"",
    "blank": b"  \n",
    "word": b"hello",
    "number": b"5",
    "null": b"null",
    "list": b"[]",
    "string": b'"hi"',
    "cut": b'{"messages": [',
    "extra": b'{"messages": []} x',
    "comma": b'{"a": 1,}',
    "quotes": b"{'messages': []}",
    "not utf-8": b'{"messages": "\xff\xfe"}',
    "latin-1": '{"model": "é"}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"a": 1}',
    "nul": b"\x00" * 100,
    "control": b'{"model": "\x01"}',
    "nan": b'{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}',
    "infinity": b'{"messages":[{"role":"user","content":"hi"}],"temperature":-Infinity}',
    "1e400": b'{"messages":[{"role":"user","content":"hi"}],"temperature":1e400}',
    "5000 digits": b'{"messages":[{"role":"user","content":"hi"}],"seed":' + b"9" * 5000 + b"}",
    "half a surrogate": b'{"messages":[{"role":"user","content":"\\ud83d"}]}',
    "half in an unknown field": b'{"messages":[{"role":"user","content":"hi"}],"user":"\\udc00"}',
    "a key twice": b'{"messages":[{"role":"user","content":"hi"}],"n":1,"n":2}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "deep and closed": b"[" * 40 + b"]" * 40,
    "deep in a field": b'{"messages":[{"role":"user","content":"hi"}],"user":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a long string without end": b'{"model": "' + b"a" * 900_000,
    "many escapes": b'"' + b'\\"' * 400_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_no_request_is_refused(url, body):
    answer = post(url, body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "n",
        "stop",
        "stream",
        "stream_options",
        "user",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, JSON, max_size=4) | JSON, st.booleans())
def test_any_json_is_a_request_or_an_api_error(value, with_hi):
    if isinstance(value, dict) and with_hi:
        value = {**value, "messages": HI}
    try:
        assert parse(json.dumps(value).encode()).messages
    except ApiError as error:
        assert 400 <= error.status < 500


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_api_error(body):
    with pytest.raises(ApiError) as error:
        parse(body)
    assert error.value.status == 400


def test_unknown_fields_and_nulls_are_ignored():
    ask = parse(
        json.dumps(
            {
                "messages": HI,
                "user": "me",
                "metadata": {"a": 1},
                "temperature": None,
                "n": None,
                "stop": None,
                "stream": None,
                "presence_penalty": 0.0,
                "logprobs": False,
                "tools": [],
                "whatever": [[1]],
            }
        ).encode()
    )
    assert ask.temperature is None and ask.stop == [] and not ask.stream


def test_the_content_type_must_be_json(url):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        check_refused(post(url, json.dumps({"messages": HI}), **{"content-type": kind}), 415)


def test_unknown_routes_and_methods_are_errors_of_the_same_form(url):
    check_refused(httpx.get(f"{url}/v1/nothing"), 404)
    check_refused(httpx.get(f"{url}/../../etc/passwd"), 404)
    check_refused(httpx.get(f"{url}/v1/chat/completions"), 405)
    check_refused(httpx.post(f"{url}/v1/models"), 405)
    check_refused(httpx.options(f"{url}/v1/chat/completions", headers={"origin": url}), 405)
    check_refused(httpx.get(f"{url}/v1/models/gpt-4"), 404, "model")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "0.0.0.0"],
)
def test_another_host_name_is_refused(url, host):
    for path in ("/", "/health", "/v1/models"):
        check_refused(httpx.get(f"{url}{path}", headers={"host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:8000"])
def test_its_own_names_are_answered(url, host):
    assert httpx.get(f"{url}/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "https://127.0.0.1.evil.example", "file://", "http://localhost@evil.example"],
)
def test_requests_of_other_web_pages_are_refused(url, origin):
    check_refused(post(url, json.dumps({"messages": HI}), origin=origin), 403)


def test_a_large_body_is_refused_before_it_is_read(url):
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=5) as s:
        s.sendall(head + b"Content-Length: 100000000\r\n\r\n{")
        assert s.recv(4096).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection((host, int(port)), timeout=5) as s:  # and without a length, after a megabyte
        s.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 20 * MAX_BODY:
                s.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
        assert sent < 20 * MAX_BODY, "it read on and on"


def test_too_many_headers_are_refused(url):
    many = {f"x-{i}": "a" for i in range(80)}
    check_refused(httpx.get(f"{url}/health", headers=many), 431)
    check_refused(httpx.get(f"{url}/health", headers={"x-long": "a" * 20_000}), 431)
    assert 400 <= httpx.get(f"{url}/health", headers={"x-long": "a" * 60_000}).status_code < 500


def test_broken_http_ends_the_connection_and_not_the_server(url):
    host, port = url.removeprefix("http://").split(":")
    for junk in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n" * 1000,
    ):
        with socket.create_connection((host, int(port)), timeout=5) as s:
            s.sendall(junk)
            s.shutdown(socket.SHUT_WR)
            answer = s.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert (
        post(url, json.dumps({"messages": HI, "model": NAME})).json()["choices"][0]["message"]["content"]
        == "You said: hi"
    )


def test_every_answer_carries_the_security_headers(url):
    for path in ("/", "/health", "/v1/models", "/nothing"):
        headers = httpx.get(url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert (
            "default-src 'none'" in headers["content-security-policy"]
            and "frame-ancestors 'none'" in headers["content-security-policy"]
        )
        assert "unsafe" not in headers["content-security-policy"]
        assert "server" not in headers and "access-control-allow-origin" not in headers
