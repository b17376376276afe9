"""A local model honours a field or refuses it; nothing is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Rejected
from backends.parameters import Sampling, read_sampling, template_options, with_defaults
from llmproxy.core.errors import AttemptError, ConfigError, InvalidRequest, UnsupportedParameter

MESSAGES = [{"role": "user", "content": "x"}]


def sampling(**body: Any) -> Sampling:
    """The sampling of a chat request."""
    return read_sampling({"messages": MESSAGES, **body}, chat=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("web_search_options", {}),
        ("prediction", {"type": "content"}),
        ("verbosity", "low"),
        ("mirostat", 2),
        ("anything_new", False),
        ("suffix", "x"),
        ("echo", True),
        ("audio", {"voice": "a"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("best_of", 3),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
    ],
)
def test_what_is_not_honoured_is_refused(field: str, value: Any) -> None:
    """A field that changes the answer and is not implemented is refused by name, so that another candidate is asked."""
    with pytest.raises(UnsupportedParameter) as caught:
        sampling(**{field: value})
    assert caught.value.param == field
    assert caught.value.kind == "unsupported"
    assert isinstance(caught.value, AttemptError)


@pytest.mark.parametrize(
    "body",
    [
        {"user": "me", "metadata": {}, "store": True, "service_tier": "auto", "safety_identifier": "x"},
        {"prompt_cache_key": "x", "prompt_cache_retention": "24h"},
        {"web_search_options": None, "anything_new": None, "functions": None, "audio": None},
        {"response_format": {"type": "text"}, "modalities": ["text"], "reasoning_effort": "none", "echo": False},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"n": 2, "best_of": 2},
        {"best_of": 1},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "continue_final_message": True},
    ],
)
def test_what_changes_nothing_is_accepted(body: dict[str, Any]) -> None:
    """Fields without influence on sampling, and values that ask for nothing special, are accepted."""
    assert sampling(**body) == Sampling(n=body.get("n", 1))


RANGES = [
    ("temperature", 0.0, 2.0), ("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0), ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0), ("repetition_penalty", 0.01, 10.0),
]  # fmt: skip


@pytest.mark.parametrize(("field", "low", "high"), RANGES)
def test_ranges(field: str, low: float, high: float) -> None:
    """Both ends of a range are in it; what is outside, or no number, is the client's mistake."""
    assert getattr(sampling(**{field: low}), field) == low
    assert getattr(sampling(**{field: high}), field) == high
    for value in (low - 0.01, high + 0.01, float("nan"), float("inf"), "1", True, [1]):
        with pytest.raises(InvalidRequest) as caught:
            sampling(**{field: value})
        assert caught.value.param == field


@pytest.mark.parametrize("field", ["top_k", "seed", "max_tokens", "max_completion_tokens", "n"])
def test_whole_numbers(field: str) -> None:
    """A count that is no integer is the client's mistake."""
    for value in (1.5, "3", True):
        with pytest.raises(InvalidRequest) as caught:
            sampling(**{field: value})
        assert caught.value.param == field


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Sampling()),
        ({"temperature": 0, "seed": 7, "top_k": 5}, Sampling(temperature=0.0, seed=7, top_k=5)),
        ({"max_tokens": 9}, Sampling(max_tokens=9)),
        ({"max_tokens": 9, "max_completion_tokens": 5}, Sampling(max_tokens=5)),
        ({"stop": "END"}, Sampling(stop=("END",))),
        ({"stop": ["a", "", "b"]}, Sampling(stop=("a", "b"))),
        ({"stop": None, "n": 3}, Sampling(n=3)),
        ({"logit_bias": {"5": -100, "7": 1.5}}, Sampling(logit_bias={5: -100.0, 7: 1.5})),
        ({"logprobs": True}, Sampling(logprobs=0)),
        ({"logprobs": True, "top_logprobs": 3}, Sampling(logprobs=3)),
        ({"logprobs": False}, Sampling()),
    ],
)
def test_chat_sampling(body: dict[str, Any], expected: Sampling) -> None:
    """What a chat request says becomes sampling; what it leaves out is left to the model."""
    assert sampling(**body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Sampling(max_tokens=16)),
        ({"max_tokens": 40}, Sampling(max_tokens=40)),
        ({"logprobs": 0}, Sampling(max_tokens=16, logprobs=0)),
        ({"logprobs": 5}, Sampling(max_tokens=16, logprobs=5)),
    ],
)
def test_completion_sampling(body: dict[str, Any], expected: Sampling) -> None:
    """A legacy completion has 16 tokens by default, and a number for its log probabilities."""
    assert read_sampling({"prompt": "x", **body}, chat=False) == expected


@pytest.mark.parametrize(
    ("chat", "body", "param"),
    [
        (True, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (True, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        (True, {"logprobs": True, "top_logprobs": "5"}, "top_logprobs"),
        (False, {"logprobs": 21}, "logprobs"),
        (False, {"logprobs": True}, "logprobs"),
        (True, {"logit_bias": {"a": 1}}, "logit_bias"),
        (True, {"logit_bias": {"1": "x"}}, "logit_bias"),
        (True, {"logit_bias": {"1": None}}, "logit_bias"),
        (True, {"logit_bias": {"1": True}}, "logit_bias"),
        (True, {"logit_bias": {"1": "nan"}}, "logit_bias"),
        (True, {"logit_bias": {"1": float("nan")}}, "logit_bias"),
        (True, {"logit_bias": {"1": 101}}, "logit_bias"),
        (True, {"logit_bias": {"-1": 1}}, "logit_bias"),
        (True, {"logit_bias": [1]}, "logit_bias"),
        (True, {"logprobs": 5}, "logprobs"),
        (True, {"top_logprobs": 5}, "top_logprobs"),
        (False, {"logprobs": -1}, "logprobs"),
        (True, {"max_tokens": 0}, "max_tokens"),
        (True, {"max_tokens": -1, "max_completion_tokens": 5}, "max_tokens"),
        (True, {"max_completion_tokens": 0}, "max_completion_tokens"),
        (True, {"n": 0}, "n"),
        (True, {"top_k": -2}, "top_k"),
        (True, {"seed": 2**63}, "seed"),
        (True, {"stop": [1]}, "stop"),
        (True, {"stop": {"a": 1}}, "stop"),
        (True, {"response_format": "json"}, "response_format"),
        (True, {"response_format": {"type": "xml"}}, "response_format"),
        (True, {"reasoning_effort": "huge"}, "reasoning_effort"),
        (True, {"reasoning_effort": 1}, "reasoning_effort"),
        (True, {"chat_template_kwargs": []}, "chat_template_kwargs"),
    ],
)
def test_wrong_values(chat: bool, body: dict[str, Any], param: str) -> None:
    """Values that mean nothing are the client's mistake, by name."""
    with pytest.raises(InvalidRequest) as caught:
        read_sampling(body, chat=chat)
    assert caught.value.param == param


def test_tools_that_are_no_functions() -> None:
    """A tool that somebody else would run is refused by its place, not left out."""
    weather = {"type": "function", "function": {"name": "weather"}}
    assert sampling(tools=[weather]) == Sampling()
    with pytest.raises(UnsupportedParameter, match="web_search") as caught:
        sampling(tools=[weather, {"type": "web_search", "name": "search"}])
    assert caught.value.param == "tools.1"


def test_too_many_choices() -> None:
    """More choices than are made are refused, not cut."""
    with pytest.raises((InvalidRequest, UnsupportedParameter)):
        sampling(n=129)


def test_reasoning_effort() -> None:
    """A model that reasons is told how much; one that does not knows only the efforts that mean none."""
    body = {"messages": MESSAGES, "reasoning_effort": "high"}
    assert read_sampling(body, chat=True, reasons=True) == Sampling()
    with pytest.raises(UnsupportedParameter):
        read_sampling({"prompt": "x", "reasoning_effort": "high"}, chat=False, reasons=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("chat_template_kwargs", {"a": 1}), ("response_format", {"type": "json_object"})],
)
def test_what_only_chats_have(field: str, value: Any) -> None:
    """Fields of chats are refused for completions."""
    with pytest.raises(UnsupportedParameter) as caught:
        read_sampling({"prompt": "x", field: value}, chat=False)
    assert caught.value.param == field


SWITCHED = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{{ tone }}"
DEEPSEEK = "{% if thinking %}<think>{% else %}</think>{% endif %}"
HARMONY = "{{ 'Reasoning: ' + reasoning_effort }}"
ALWAYS = "{{ content.split('</think>') }}{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
SOMETIMES = "{{ content.split('</think>') }}{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
NEVER = "You are thinking. {{ messages }}{% if add_generation_prompt %}{% endif %}"


@pytest.mark.parametrize(
    ("body", "template", "options"),
    [
        ({}, SWITCHED, {}),
        ({"reasoning_effort": "none"}, SWITCHED, {"enable_thinking": False}),
        ({"reasoning_effort": "minimal"}, SWITCHED, {"enable_thinking": False}),
        ({"reasoning_effort": "low"}, SWITCHED, {"enable_thinking": True}),
        ({"reasoning_effort": "high"}, DEEPSEEK, {"thinking": True}),
        ({"reasoning_effort": "low"}, HARMONY, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "high"}, ALWAYS, {}),
        ({"reasoning_effort": "high"}, SOMETIMES, {}),
        ({"reasoning_effort": "none"}, SOMETIMES, {}),
        ({"reasoning_effort": "none"}, NEVER, {}),
        ({"chat_template_kwargs": {"tone": "dry"}}, SWITCHED, {"tone": "dry"}),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"},
            SWITCHED,
            {"enable_thinking": True},
        ),
        ({"chat_template_kwargs": None}, NEVER, {}),
    ],
)
def test_template_options(body: dict[str, Any], template: str, options: dict[str, Any]) -> None:
    """The effort switches the variable that the template has for it; what the client says of a variable counts more."""
    assert template_options(body, template) == options


@pytest.mark.parametrize(
    ("body", "template", "param"),
    [
        ({"reasoning_effort": "none"}, ALWAYS, "reasoning_effort"),
        ({"reasoning_effort": "high"}, NEVER, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, NEVER, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"thinking": False}}, NEVER, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, NEVER, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, NEVER, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, NEVER + "{{ chat_template }}", "chat_template_kwargs"),
    ],
)
def test_options_that_a_template_has_not(body: dict[str, Any], template: str, param: str) -> None:
    """What a template cannot honour is refused, and so is what would replace the template or its messages."""
    with pytest.raises(Rejected) as caught:
        template_options(body, template)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


def test_defaults() -> None:
    """Defaults stand behind the request and leave the rest to the model."""
    defaults = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 100}
    assert with_defaults(Sampling(), defaults) == Sampling(temperature=0.6, top_p=0.9, max_tokens=100)
    asked = Sampling(temperature=0.0, max_tokens=5, seed=1)
    assert with_defaults(asked, defaults) == Sampling(temperature=0.0, top_p=0.9, max_tokens=5, seed=1)
    assert with_defaults(asked, {}) == asked


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        ({"heat": 1}, "defaults.heat"),
        ({"stop": ["x"]}, "defaults.stop"),
        ({"temperature": 3}, "defaults.temperature"),
        ({"max_tokens": 0}, "defaults.max_tokens"),
    ],
)
def test_wrong_defaults(defaults: dict[str, Any], message: str) -> None:
    """A default that means nothing is a mistake of the configuration."""
    with pytest.raises(ConfigError, match=message):
        with_defaults(Sampling(), defaults)
