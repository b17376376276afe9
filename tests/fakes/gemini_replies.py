"""Gemini's wire format, pure: what the API refuses, and what the scenarios of `scenarios.py` answer in it.

A request is read as strictly as Google reads it: a field that it does not define, turns that do not fit, and results
that do not pair up with their calls are refused in its words. Models whose names begin with `gemini-3` want the
signatures of their calls back, and tell their thoughts to those alone who ask for them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes import scenarios

Json = dict[str, Any]

CALL_IDS = tuple(f"gemini-{city.lower()}" for city in scenarios.CITIES)
SIGNATURES = tuple(base64.b64encode(f"signed for {city}".encode()).decode() for city in scenarios.CITIES)
# What Google takes in place of the signature of a call that another model made.
UNSIGNED = "skip_thought_signature_validator"
RESPONSE_ID = "gemini-response"

_FIELDS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {"contents", "tools", "toolConfig", "safetySettings", "systemInstruction", "generationConfig", "cachedContent"}
    ),
    "generation_config": frozenset(
        {
            "stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema", "responseModalities",
            "candidateCount", "maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty",
            "frequencyPenalty", "responseLogprobs", "logprobs", "enableEnhancedCivicAnswers", "speechConfig",
            "thinkingConfig", "imageConfig", "mediaResolution",
        }
    ),
    "contents": frozenset({"role", "parts"}),
    "parts": frozenset(
        {
            "text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse",
            "executableCode", "codeExecutionResult", "videoMetadata", "mediaResolution", "partMetadata",
        }
    ),
    "function_call": frozenset({"id", "name", "args"}),
    "function_response": frozenset({"id", "name", "response", "willContinue", "scheduling", "parts"}),
    "function_declarations": frozenset(
        {"name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "behavior"}
    ),
}  # fmt: skip


class Refused(Exception):
    """An error status with its body in Google's shape (https://google.aip.dev/193)."""

    def __init__(self, status: int, message: str, word: str, *details: Json) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"code": status, "message": message, "status": word}}
        if details:
            self.body["error"]["details"] = list(details)


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts in the pieces in which they are streamed, how it ended, and the tokens of its thoughts and the cache.

    `breaks` for an answer that never ends.
    """

    pieces: tuple[tuple[Json, ...], ...]
    finish: str = "STOP"
    thought_tokens: int = 0
    cached_tokens: int = 0
    breaks: bool = False

    def usage(self) -> Json:
        """`usageMetadata`: thoughts are counted beside the candidates' tokens."""
        said = scenarios.COMPLETION_TOKENS - self.thought_tokens
        found: Json = {"promptTokenCount": scenarios.PROMPT_TOKENS, "candidatesTokenCount": said}
        if self.thought_tokens:
            found["thoughtsTokenCount"] = self.thought_tokens
        if self.cached_tokens:
            found["cachedContentTokenCount"] = self.cached_tokens
        total = scenarios.PROMPT_TOKENS + scenarios.COMPLETION_TOKENS
        details = [{"modality": "TEXT", "tokenCount": scenarios.PROMPT_TOKENS}]
        return {**found, "totalTokenCount": total, "promptTokensDetails": details}


def bad(message: str) -> Refused:
    """400 for what the request says."""
    return Refused(400, message, "INVALID_ARGUMENT")


def wrong_key() -> Refused:
    """How Google refuses a key."""
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    return Refused(400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", reason)


def too_many() -> Refused:
    """A minute's quota is used up; the wait stands in the body alone."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        "quotaValue": "5",
    }
    return Refused(
        429,
        scenarios.REFUSAL,
        "RESOURCE_EXHAUSTED",
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{scenarios.RETRY_AFTER_S}s"},
    )


def answer(model: str, body: Json) -> Answer:
    """The answer of `model`; raises `Refused`."""
    check(body)
    strict = model.startswith("gemini-3")
    check_turns(body["contents"], signed=strict)
    config = body.get("generationConfig") or {}
    if body.get("tools") and config.get("responseMimeType") == "application/json" and not strict:
        raise bad("Function calling with a response mime type: 'application/json' is unsupported")
    match scenarios.scenario_of(model):
        case "tools":
            return _weather(body)
        case "image":
            return _said(scenarios.COLOUR if _shows(body, scenarios.IMAGE) else scenarios.NO_IMAGE)
        case "schema":
            return _said(json.dumps(scenarios.PERSON) if _follows(config) else scenarios.NO_SCHEMA)
        case "refused":
            raise too_many()
        case "cut":
            return Answer(_said(scenarios.BEFORE_THE_CUT).pieces, breaks=True)
        case "thinks":
            return _thought(told=not strict or bool((config.get("thinkingConfig") or {}).get("includeThoughts")))
        case "declined":
            return Answer((), finish="SAFETY")
        case "long":
            return Answer(_said(scenarios.greeting("Gemini")).pieces, finish="MAX_TOKENS")
    return _said(scenarios.greeting("Gemini"))


def whole(found: Answer, model: str) -> Json:
    """A `GenerateContentResponse`."""
    return _response(found, model, _merged([part for piece in found.pieces for part in piece]), found.finish)


def frames(found: Answer, model: str) -> Iterator[Json]:
    """The elements of a stream: a piece each, and the reason of the end beside an empty text, as Google sends it."""
    for piece in found.pieces:
        yield _response(found, model, list(piece), None)
    if not found.breaks:
        yield _response(found, model, [{"text": ""}] if found.pieces else [], found.finish)


def model_list(models: Sequence[str], page_size: int = 50, page_token: str = "") -> Json:
    """A page of the list of models."""
    begin = int(page_token or 0)
    end = begin + page_size
    found: Json = {"models": [_model(name) for name in models[begin:end]]}
    return {**found, "nextPageToken": str(end)} if end < len(models) else found


def _model(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.title(),
        "description": "a fake",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "temperature": 1,
        "maxTemperature": 2,
    }


def _response(found: Answer, model: str, parts: list[Json], finish: str | None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"} if parts else {"role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        "usageMetadata": found.usage(),
        "modelVersion": model,
        "responseId": RESPONSE_ID,
    }


def _merged(parts: list[Json]) -> list[Json]:
    """Neighbouring texts of one kind as one part."""
    found: list[Json] = []
    for part in parts:
        last = found[-1] if found else {}
        if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
            found[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            found.append(part)
    return found


# -- scenarios ----------------------------------------------------------------------------------------------------


def _said(text: str, **more: Any) -> Answer:
    """`text` in two pieces."""
    half = len(text) // 2
    return Answer((({"text": text[:half]},), ({"text": text[half:]},)), **more)


def _thought(*, told: bool) -> Answer:
    thoughts = tuple(({**part, "thought": True},) for (part,) in _said(scenarios.THOUGHT).pieces) if told else ()
    done = _said(scenarios.DONE).pieces
    return Answer(thoughts + done, thought_tokens=scenarios.REASONING_TOKENS, cached_tokens=scenarios.CACHED_TOKENS)


def _weather(body: Json) -> Answer:
    """Both calls, or what their results add up to."""
    declared = [one for tool in body.get("tools") or () for one in tool.get("functionDeclarations") or ()]
    tool = next((one for one in declared if one["name"] == scenarios.TOOL), None)
    if tool is None:
        raise bad(f"the fake wants the function {scenarios.TOOL}")
    if "city" not in (tool.get("parametersJsonSchema") or tool.get("parameters") or {}).get("properties", {}):
        raise bad(f"{scenarios.TOOL} wants a city")
    results = {
        part["functionResponse"].get("id"): json.dumps(part["functionResponse"]["response"])
        for part in body["contents"][-1]["parts"]
        if "functionResponse" in part and part["functionResponse"]["name"] == scenarios.TOOL
    }
    if not results:
        calls = zip(CALL_IDS, scenarios.CITIES, SIGNATURES, strict=True)
        return Answer(
            tuple(
                ({"functionCall": {"id": one, "name": scenarios.TOOL, "args": {"city": city}}, "thoughtSignature": of},)
                for one, city, of in calls
            )
        )
    # Clients that know no ids have some made up; that calls and results have the same was seen by `check_turns`.
    asked = [call.get("id") for call in _calls(body["contents"][-2])]
    for call_id, degrees in zip(asked, scenarios.TEMPERATURES, strict=True):
        if degrees not in results.get(call_id, ""):
            raise bad(f"the result of {call_id} is not {degrees}: {results}")
    return _said(scenarios.WEATHER)


def _shows(body: Json, image: bytes) -> bool:
    """Whether the request holds these bytes under their media type."""
    shown = [part["inlineData"] for content in body["contents"] for part in content["parts"] if "inlineData" in part]
    wanted = {"mimeType": scenarios.IMAGE_TYPE, "data": base64.b64encode(image).decode()}
    return wanted in shown


def _follows(config: Json) -> bool:
    """Whether the request asks for `SCHEMA`."""
    schema = config.get("responseJsonSchema")
    return config.get("responseMimeType") == "application/json" and scenarios.is_schema(schema)


# -- what is refused ----------------------------------------------------------------------------------------------


def check(body: Any) -> None:
    """Raise `Refused` for fields that Google does not define, where a translation may have left one."""
    if not isinstance(body, dict) or not body.get("contents"):
        raise bad("* GenerateContentRequest.contents: contents is not specified")
    _known(body, "")
    _known(body.get("generationConfig") or {}, "generation_config")
    for tool in body.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            _known(function, "function_declarations")
            if "parameters" in function and "parametersJsonSchema" in function:
                raise bad("parameters and parameters_json_schema are mutually exclusive")
    for content in [*body["contents"], *filter(None, [body.get("systemInstruction")])]:
        _known(content, "contents")
        if not content.get("parts"):
            raise bad("contents.parts must not be empty.")
        for part in content["parts"]:
            _known(part, "parts")
            _known(part.get("functionCall") or {}, "function_call")
            _known(part.get("functionResponse") or {}, "function_response")


def check_turns(contents: Sequence[Json], *, signed: bool) -> None:
    """Raise `Refused` where turns, or calls and their results, do not fit; `signed` also where no signature is."""
    if any(content.get("role") not in ("user", "model") for content in contents):
        raise bad("Please use a valid role: user, model.")
    if contents[-1]["role"] != "user":
        raise bad("Please ensure that the last turn is of the user.")
    for before, content in zip([None, *contents], contents, strict=False):
        results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        calls = _calls(before)
        if len(results) != len(calls):
            raise bad(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        if sorted(map(_named, results)) != sorted(map(_named, calls)):
            raise bad("Please ensure that each function response has the id and the name of its function call.")
        if not all(isinstance(result.get("response"), dict) for result in results):
            raise bad("function_response.response must be a struct.")
        if signed and _calls(content) and not _is_signed(content):
            raise bad("Function call is missing a thought_signature in functionCall parts.")


def _known(value: Json, name: str) -> None:
    if unknown := sorted({_camel(key) for key in value} - _FIELDS[name]):
        place = f" at '{name}'" if name else ""
        raise bad(f'Invalid JSON payload received. Unknown name "{unknown[0]}"{place}: Cannot find field.')


def _camel(name: str) -> str:
    """A field's name as protobuf's JSON writes it; either spelling is read."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _calls(content: Json | None) -> list[Json]:
    return [part["functionCall"] for part in (content or {}).get("parts", ()) if "functionCall" in part]


def _named(holder: Json) -> tuple[str, str]:
    return holder.get("id") or "", holder["name"]


def _is_signed(content: Json) -> bool:
    first = next(part for part in content["parts"] if "functionCall" in part)
    return first.get("thoughtSignature") in (*SIGNATURES, UNSIGNED)
