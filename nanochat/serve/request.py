"""What a client may ask for: the body of POST /v1/chat/completions, checked field by field.

    body = await read_body(request)            # bytes, refused as soon as they pass the limit
    ask = parse(body)                          # ChatRequest, or ApiError with the HTTP status and the field at fault
    conversation = to_conversation(ask)        # what the tokenizer renders

Every limit holds before a single token is made. Types are strict (true is not a number, "5" is not 5), NaN and
infinities are refused, unknown fields are ignored, and a field that changes the answer but is not built here is
refused when it is set."""

import json
import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

MAX_BODY = 1 << 20  # bytes
MAX_MESSAGES = 200
MAX_CHARACTERS = 32_000  # of all messages together
MAX_CHOICES = 8
MAX_DEPTH = 32  # of nested JSON

STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)

# Fields of OpenAI's API that would change the answer and are not built here, with the values that ask for nothing.
NOT_BUILT = {
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
}


class ApiError(Exception):
    """An answer in OpenAI's error form. `param` names the field at fault, `code` is for programs."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, headers: dict | None = None
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def body(self) -> dict:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class TextPart(BaseModel):
    """One part of a message given as a list; only text is understood."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool = False


def _as_list(stop):
    return [] if stop is None else [stop] if isinstance(stop, str) else stop


StopString = Annotated[str, Field(min_length=1, max_length=64)]


class ChatRequest(BaseModel):
    """The fields of a chat completion that mean something here. Optional ones may be null, as OpenAI's clients send
    them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str | None = Field(None, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 20)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1 << 20)  # 0 keeps all; OpenAI has no such field, many servers do
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stop: Annotated[list[StopString], BeforeValidator(_as_list), Field(max_length=4)] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @field_validator("messages")
    @classmethod
    def _short_enough(cls, messages: list[Message]) -> list[Message]:
        total = sum(len(message.text) for message in messages)
        if total > MAX_CHARACTERS:
            raise ValueError(f"the messages hold {total} characters together, the limit is {MAX_CHARACTERS}")
        return messages

    @model_validator(mode="after")
    def _options_need_a_stream(self):
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed with stream: true")
        return self


FIELDS = {name for model in (ChatRequest, StreamOptions, Message, TextPart) for name in model.model_fields}


def parse(body: bytes) -> ChatRequest:
    """The request in `body`, or ApiError 400 naming the field at fault."""
    fields = _read_json(body)
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object")
    for name, neutral in NOT_BUILT.items():
        if name in fields and not any(_same(fields[name], value) for value in neutral):
            raise ApiError(400, f"{name} is not supported by this server; leave it out", name, "unsupported_parameter")
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _as_api_error(error) from None


def to_conversation(ask: ChatRequest) -> dict:
    """The request's messages in the form the tokenizer renders: an optional system message, then user and assistant
    in turn, a user's message last. Neighbours with the same role are joined by a blank line. Raises ApiError 400 for
    any other order."""
    turns: list[dict] = []
    for i, message in enumerate(ask.messages):
        role = "system" if message.role == "developer" else message.role
        if role == "system" and any(turn["role"] != "system" for turn in turns):
            raise ApiError(400, "a system message must come before all others", f"messages[{i}].role")
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n\n" + message.text
        else:
            turns.append({"role": role, "content": message.text})
    first = next((turn["role"] for turn in turns if turn["role"] != "system"), None)
    if first != "user" or turns[-1]["role"] != "user":
        raise ApiError(400, "a conversation starts with a user's message and ends with one", "messages")
    return {"messages": turns}


def _read_json(body: bytes):
    if not body.strip():
        raise ApiError(400, "the body is empty; send a JSON object")
    try:
        text = body.decode("utf-8")
        if _too_deep(text):
            raise ApiError(400, f"the body is nested deeper than {MAX_DEPTH} levels")
        fields = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_no_duplicates)
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
        return fields
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not valid UTF-8") from None
    except UnicodeEncodeError:
        raise ApiError(400, "a string in the body holds half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(";")[0]
        raise ApiError(400, f"the body is not valid JSON: {reason}") from None


def _same(a, b) -> bool:
    """Equal as JSON: 0 and 0.0 are, 0 and false are not."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return fields


def _too_deep(text: str) -> bool:
    """Whether brackets outside strings nest deeper than MAX_DEPTH: a scan that never recurses, so no body can
    exhaust the stack."""
    depth = 0
    for found in STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            return True
    return False


def _as_api_error(error: ValidationError) -> ApiError:
    """The innermost problem, in words; the value itself is not repeated (it may be long, or private)."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    problem = max(problems, key=lambda problem: len(problem["loc"]))
    param = ""
    for step in problem["loc"]:
        if isinstance(step, int):
            param += f"[{step}]"
        elif step in FIELDS:
            param += f".{step}" if param else step  # anything else is pydantic's name for a branch of a union
    message = problem["msg"].removeprefix("Value error, ")
    if not param and "stream_options" in message:
        param = "stream_options"
    return ApiError(400, f"{param}: {message}" if param else message, param or None)
