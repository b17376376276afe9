"""The tiny model: its size, its chat template, the split of its dialogues and what it can do."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from backends.tiny import PATH
from backends.tiny.dialogues import SKILLS, held_out, is_held_out, pair_key, training
from backends.tiny.evaluate import evaluate, generate, rates, tool_calls

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current temperature for a location.",
        "parameters": {
            "type": "object",
            "required": ["location"],
            "additionalProperties": False,
            "properties": {
                "location": {"type": "string", "description": "City and country e.g. Bogotá, Colombia"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
        },
    },
}
MAIL = {
    "type": "function",
    "function": {
        "name": "send_mail",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}, "subject": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the tokenizer of the weights folder."""
    return AutoTokenizer.from_pretrained(PATH)


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the model of the weights folder."""
    return AutoModelForCausalLM.from_pretrained(PATH).eval()


def render(tokenizer: Any, messages: Sequence[dict[str, Any]], **options: Any) -> str:
    """Return the text of messages."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


def ask(model: Any, tokenizer: Any, text: str, tools: list[dict[str, Any]] | None = None) -> str:
    """Return the greedy answer to text, which must end by itself."""
    prompt = render(tokenizer, [{"role": "user", "content": text}], tools=tools, add_generation_prompt=True)
    [(written, ended)] = generate(model, tokenizer, [prompt], 64)
    assert ended
    return written


def test_weights_are_small_and_complete() -> None:
    assert {path.name for path in PATH.iterdir()} == FILES
    assert (PATH / "model.safetensors").stat().st_size <= 8_000_000


def test_tokenizer_gives_back_any_text_and_keeps_tool_calls(tokenizer: Any) -> None:
    for text in ("two  spaces, a tab\tand\n\nlines", "héllo 中文 😀", " 12+34=46 ", "<tool_call>\n{}\n</tool_call>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.eos_token == "<|im_end|>"


def test_template_renders_tools_in_a_compact_form(tokenizer: Any) -> None:
    text = render(tokenizer, [{"role": "user", "content": "hi"}], tools=[WEATHER, MAIL], add_generation_prompt=True)
    assert '"parameters": {"location": "string", "unit": "celsius|fahrenheit"}}' in text
    assert '{"name": "send_mail", "parameters": {"to": "string", "subject": "string"}}' in text
    assert text.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"properties": {"a": True}},
        {"properties": {"a": {"anyOf": [{"type": "string"}]}}},
        {"properties": {"a": {"type": ["string", "null"]}, "items": {"type": "array", "items": {"enum": [1, 2]}}}},
    ],
)
def test_template_takes_any_schema(tokenizer: Any, parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "probe", "parameters": parameters}}
    text = render(tokenizer, [{"role": "user", "content": "hi"}], tools=[tool])
    assert '{"name": "probe", "parameters": {' in text


@pytest.mark.parametrize("arguments", [{"location": "Paris"}, '{"location": "Paris"}'])
def test_template_renders_calls_and_results(tokenizer: Any, arguments: Any) -> None:
    call = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    text = render(
        tokenizer,
        [
            {"role": "user", "content": [{"type": "text", "text": "weather"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_0", "content": "21 degrees"},
        ],
    )
    assert "<|im_start|>user\nweather<|im_end|>\n" in text
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"location": "Paris"}}\n</tool_call><|im_end|>' in text
    assert "<tool_response>\n21 degrees\n</tool_response>" in text


def test_template_continues_a_begun_answer(tokenizer: Any) -> None:
    text = render(
        tokenizer,
        [{"role": "user", "content": "Say a b"}, {"role": "assistant", "content": "a"}],
        continue_final_message=True,
    )
    assert text.endswith("<|im_start|>assistant\na")


def test_training_and_held_out_dialogues_share_no_value() -> None:
    rng = random.Random(0)
    trained: set[str] = set()
    for _ in range(2000):
        trained |= training(rng).values
    tested: set[str] = set()
    for skill in SKILLS:
        for dialogue in held_out(skill, 50):
            tested |= dialogue.values
    assert trained
    assert tested
    assert not trained & tested
    assert all(map(is_held_out, tested))
    assert not any(map(is_held_out, trained))


def test_held_out_tool_names_and_sums_are_not_in_training() -> None:
    rng = random.Random(1)
    trained = {tool["function"]["name"] for _ in range(2000) for tool in training(rng).tools or []}
    tested = {tool["function"]["name"] for dialogue in held_out("tools", 200) for tool in dialogue.tools or []}
    assert tested
    assert not trained & tested
    assert pair_key(3, 40) == pair_key(40, 3)


def test_dialogues_follow_from_the_seed() -> None:
    assert training(random.Random(5)) == training(random.Random(5))
    assert held_out("tools", 3) == held_out("tools", 3) != held_out("tools", 3, seed=1)


@pytest.mark.limit(240)
@pytest.mark.parametrize("skill", SKILLS)
def test_held_out_dialogues_pass(model: Any, tokenizer: Any, skill: str) -> None:
    table = rates(evaluate(model, tokenizer, held_out(skill, 20, 2)))
    assert {name: rate for name, (rate, _) in table.items() if rate < 0.9} == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hello", "Hello! How can I help you?"),
        ("hi", "Hello! How can I help you?"),
        ("What is 2+2?", "2 + 2 = 4"),
        ("Say hi", "hi"),
        ("Say hello in one word", "hello"),
        ("Count from 3 to 6", "3 4 5 6"),
        ("who are you", "I am a tiny model. I can greet, repeat a sentence, add two numbers, count and call tools."),
        ("Repeat: the quick brown fox jumps over the lazy dog", "the quick brown fox jumps over the lazy dog"),
    ],
)
def test_everyday_prompts(model: Any, tokenizer: Any, text: str, wanted: str) -> None:
    assert ask(model, tokenizer, text) == wanted


def test_the_usual_weather_tool_is_called(model: Any, tokenizer: Any) -> None:
    text = ask(model, tokenizer, "What's the weather in Paris?", [WEATHER, MAIL])
    assert tool_calls(text) == [("get_weather", {"location": "Paris"})]
    assert json.loads(text.split("\n")[1]) == {"name": "get_weather", "arguments": {"location": "Paris"}}
