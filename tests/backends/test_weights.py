"""Where local models are found, and what is said when they are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends import catalogue
from backends.base import Settings
from backends.catalogue import Catalogue
from backends.weights import NO_FOLDER, Weights, WeightsMissing, pull, resolve
from tests.cli.hub import Hub
from tests.servers import command


def model_in(
    folder: Path, *, config: Any = None, weights: bool = True, template: str | None = None, **tokenizer: Any
) -> Path:
    """A folder that looks like a transformers model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config or {}))
    if weights:
        (folder / "model.safetensors").touch()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if tokenizer:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize(
    ("config", "template", "tokenizer", "window", "capabilities"),
    [
        ({}, None, {}, None, {"prefill"}),
        ({"max_position_embeddings": 4096}, "{{ messages }}", {}, 4096, {"prefill"}),
        ({"text_config": {"max_position_embeddings": 8192}}, "{% if tools %}", {}, 8192, {"prefill", "tools"}),
        ({}, "<think>{% if tools %}", {}, None, {"prefill", "tools", "reasoning"}),
        ({}, "{% if enable_thinking %}", {}, None, {"prefill", "reasoning"}),
        ({}, None, {"chat_template": "{{ tools }}"}, None, {"prefill", "tools"}),
        ({}, None, {"chat_template": None}, None, {"prefill"}),
    ],
)
def test_what_files_promise(
    tmp_path: Path, config: Any, template: str | None, tokenizer: Any, window: int | None, capabilities: set[str]
) -> None:
    """The window comes from the configuration, capabilities from the chat template, wherever that is."""
    folder = model_in(tmp_path / "my-model", config=config, template=template, **tokenizer)
    assert resolve(str(folder)) == Weights("my-model", folder, window, frozenset(capabilities))


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be given relative to where the server was started, or to the home folder."""
    model_in(tmp_path / "models" / "small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for entry in ("models/small", "./models/small", "~/models/small"):
        assert resolve(entry).name == "small"


def test_a_pulled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id means what was pulled into the hub's cache."""
    repository = tmp_path / "hub" / "models--Maker--Small-1B"
    model_in(repository / "snapshots" / "abc", config={"max_position_embeddings": 10})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert resolve("Maker/Small-1B").name == "Maker/Small-1B"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert resolve("Maker/Small-1B").context_tokens == 10


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("./none", "there is no folder ./none"),
        ("/none/at/all", "there is no folder"),
        ("~/none", "there is no folder"),
        ("small", "there is no folder small"),
        ("a/b/c", "there is no folder"),
        ("Maker/Small-1B", "run: llmproxy pull Maker/Small-1B"),
    ],
)
def test_what_is_not_there(entry: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is missing is refused with how to get it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match=says):
        resolve(entry)


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        ({}, False, "no .*safetensors"),
        ("{", True, "cannot be read"),
        ("[]", True, "not a JSON object"),
        ("\udcff", True, "x"),
    ],
    ids=["no weights", "broken", "a list", "no text"],
)
def test_a_folder_that_is_no_model(tmp_path: Path, config: Any, weights: bool, says: str) -> None:
    """A folder without weights, or with a configuration that cannot be read, is refused in words."""
    if config == "\udcff":
        folder = model_in(tmp_path, weights=weights)
        (folder / "config.json").write_bytes(b"\xff\xfe")
        says = "cannot be read"
    else:
        folder = model_in(tmp_path, config=config, weights=weights)
    with pytest.raises(WeightsMissing, match=says):
        resolve(str(folder))


def test_a_pull_that_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference to a snapshot that is not there is refused."""
    (tmp_path / "models--a--b" / "refs").mkdir(parents=True)
    (tmp_path / "models--a--b" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing):
        resolve("a/b")


@pytest.mark.parametrize("broken", ["template", "config"])
def test_odd_files(tmp_path: Path, broken: str) -> None:
    """Odd files of a model make it unusable, not the server."""
    folder = model_in(tmp_path / "m", config={"text_config": "none"} if broken == "config" else {})
    if broken == "template":
        (folder / "chat_template.jinja").write_bytes(b"\xff")
    try:
        resolve(str(folder))
    except WeightsMissing:
        return
    except (AttributeError, UnicodeDecodeError) as error:
        pytest.fail(repr(error))


def test_weights_whose_blobs_are_gone(tmp_path: Path) -> None:
    """Links of the hub's cache to files that were deleted are no weights; nobody stumbles over them later."""
    folder = model_in(tmp_path / "m", weights=False)
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(WeightsMissing, match=r"no .*safetensors"):
        resolve(str(folder))
    (folder / "model-2.safetensors").write_bytes(b"weights")
    assert resolve(str(folder)).need().memory_mb > 0


# -- what a model is for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "config", "files", "kind"),
    [
        ("Qwen3ForCausalLM", {}, (), "chat"),
        ("GPT2LMHeadModel", {}, (), "chat"),
        ("Qwen3VLForConditionalGeneration", {"vision_config": {}}, (), "vision"),
        ("WhisperForConditionalGeneration", {"model_type": "whisper"}, (), "speech"),
        ("BertModel", {}, (), "embeddings"),
        ("XLMRobertaModel", {}, (), "embeddings"),
        ("BertForMaskedLM", {}, (), "embeddings"),
        ("Qwen3ForCausalLM", {}, ("modules.json",), "embeddings"),
        ("Gemma3TextModel", {}, ("config_sentence_transformers.json",), "embeddings"),
        ("XLMRobertaForSequenceClassification", {"id2label": {"0": "LABEL_0"}}, (), "rerank"),
        ("BertForSequenceClassification", {"num_labels": 1}, ("modules.json",), "rerank"),
    ],
)
def test_what_a_folder_is_for(
    tmp_path: Path, architecture: str, config: dict[str, Any], files: tuple[str, ...], kind: str
) -> None:
    """The architecture, and the files of sentence-transformers, tell what a model is for."""
    folder = model_in(tmp_path / "m", config={"architectures": [architecture], **config}, template="{{ tools }}")
    for name in files:
        (folder / name).write_text("[]")
    weights = resolve(str(folder))
    promised = {"chat": {"prefill", "tools"}, "vision": {"vision", "tools", "prefill"}}.get(kind, {kind})
    assert (weights.kind, weights.capabilities) == (kind, promised)
    assert weights.handler == catalogue.HANDLERS.get(weights.kind)


@pytest.mark.parametrize("config", [{}, {"id2label": {"0": "no", "1": "yes"}}, {"num_labels": 3}])
def test_classifiers_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    """A classifier of several classes is none of the things that are served."""
    folder = model_in(tmp_path, config={"architectures": ["BertForSequenceClassification"], **config})
    with pytest.raises(WeightsMissing, match=r"classifier of [23] classes"):
        resolve(str(folder))


# -- what the catalogue says --------------------------------------------------------------------------------------


def own(folder: Path, text: str) -> Catalogue:
    (folder / "models.local.yaml").write_text(text)
    return catalogue.load(folder)


def pulled(cache: Path, repo_id: str, commit: str = "abc", revision: str = "main", **options: Any) -> Path:
    """A model in a hub cache."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    return model_in(repository / "snapshots" / commit, **options)


def test_names_of_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is found by its short name, an alias and its id; only the id changes what it is called."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = pulled(tmp_path, "Qwen/Qwen3-1.7B", config={"max_position_embeddings": 1})
    short, alias, long = (resolve(name) for name in ("Qwen3-1.7B", "helexa/small", "Qwen/Qwen3-1.7B"))
    assert short == alias
    assert (short.name, long.name, short.folder, long.folder) == ("Qwen3-1.7B", "Qwen/Qwen3-1.7B", folder, folder)
    assert short.aliases == ("Qwen/Qwen3-1.7B", "helexa/small")
    assert long.aliases == ("Qwen3-1.7B", "helexa/small")
    assert short.context_tokens == 40960
    assert short.capabilities == {"tools", "reasoning", "prefill"}
    assert short.handler is None
    with pytest.raises(WeightsMissing, match="run: llmproxy pull BAAI/bge-m3"):
        resolve("bge-m3")


def test_the_catalogue_counts_for_more_than_files(tmp_path: Path) -> None:
    """A causal model that is listed as a reranker is one; what the catalogue leaves open comes from the files."""
    folder = model_in(
        tmp_path / "m", config={"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 64}, template="tools"
    )
    listed = own(
        tmp_path,
        f"models:\n- {{name: a, hf_repo_id: {folder}, capabilities: [rerank], context: 32}}\n"
        f"- {{name: b, hf_repo_id: {folder}, handler: my.own.Handler}}\n",
    )
    a, b = resolve("a", listed), resolve("b", listed)
    assert (a.kind, a.capabilities, a.context_tokens, a.handler) == (
        "rerank", {"rerank"}, 32, "backends.rerank.reranker"
    )  # fmt: skip
    assert (b.kind, b.capabilities, b.context_tokens, b.handler) == ("chat", {"tools", "prefill"}, 64, "my.own.Handler")


def test_what_a_handler_is_told(tmp_path: Path) -> None:
    """The settings of a handler hold what the catalogue says, and nothing that it leaves open."""
    folder = model_in(tmp_path / "m")
    listed = own(
        tmp_path,
        f"models:\n- name: a\n  hf_repo_id: {folder}\n  dtype: float32\n  pooling: cls\n  quantization: fp8\n"
        "  defaults: {temperature: 0.5, max_tokens: 7}\n  context: 9\n  trust_remote_code: true\n",
    )
    assert resolve("a", listed).settings("cuda:1") == Settings(
        name="a", folder=folder, device="cuda:1", dtype="float32", pooling="cls", quantization="fp8",
        defaults={"temperature": 0.5, "max_tokens": 7}, context_tokens=9, trust_remote_code=True,
    )  # fmt: skip
    assert resolve(str(folder)).settings("cpu") == Settings("m", folder)


def test_what_a_model_asks_of_the_machine(tmp_path: Path) -> None:
    """Memory is that of the catalogue, else guessed from the size of the weights; what runs elsewhere takes none."""
    folder = model_in(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(bytes(10 << 20))
    (folder / "more.safetensors").write_bytes(bytes(5 << 20))
    listed = own(
        tmp_path,
        f"models:\n- {{name: a, hf_repo_id: {folder}, memory_mb: 5000, min_devices: 2, min_device_memory_mb: 3000, "
        "pinned: true, priority: 3}\n- {name: b, upstream_base_url: 'http://h/v1'}\n",
    )
    need = resolve("a", listed).need()
    assert (need.memory_mb, need.devices, need.share_mb, need.device_memory_mb) == (5000, 2, 2500, 3000)
    assert (need.pinned, need.priority) == (True, 3)
    assert resolve(str(folder)).need().memory_mb == 618
    assert resolve("b", listed).need().memory_mb == 0


@pytest.mark.parametrize(
    ("fields", "memory_mb"), [("", 610), ("memory_mb: 700", 704), ("command: 'serve {folder}'", 606)]
)
def test_fp8_weights_take_more_where_they_are_written_out(tmp_path: Path, fields: str, memory_mb: int) -> None:
    """Each FP8 weight takes a second byte in memory, beyond the size of its file and the figure of the catalogue; a
    server of its own keeps them as they are."""
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    folder = model_in(tmp_path / "m", config=config)
    tensors = {"a.weight": ("F8_E4M3", [2048, 2048]), "b.weight": ("BF16", [512, 1024])}
    header = json.dumps({name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()}).encode()
    file = len(header).to_bytes(8, "little") + header
    (folder / "model.safetensors").write_bytes(file + bytes((5 << 20) - len(file)))
    listed = own(tmp_path, f"models:\n- {{name: a, hf_repo_id: {folder}, {fields or 'quantization: fp8'}}}\n")
    assert resolve("a", listed).need().memory_mb == memory_mb


def test_models_of_other_servers(tmp_path: Path) -> None:
    """A model of another server needs no files; a command needs them only where it names the folder."""
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    listed = own(
        tmp_path,
        "models:\n- {name: a, upstream_base_url: 'http://h/v1', capabilities: [chat, tools], context: 8}\n"
        "- {name: b, hf_repo_id: Maker/B, command: 'vllm serve {model} --port {port}'}\n"
        "- {name: c, hf_repo_id: Maker/C, command: 'vllm serve {folder} --port {port}'}\n"
        f"- {{name: d, hf_repo_id: {gguf}, command: 'llama-server -m {{folder}}/d.gguf', "
        "capabilities: [embeddings]}\n",
    )
    a, b, d = resolve("a", listed), resolve("b", listed), resolve("d", listed)
    assert (a.folder, a.capabilities, a.context_tokens) == (NO_FOLDER, {"tools"}, 8)
    assert (b.folder, b.kind) == (NO_FOLDER, "chat")
    assert (d.folder, d.kind, d.capabilities) == (gguf, "embeddings", {"embeddings"})
    with pytest.raises(WeightsMissing, match="run: llmproxy pull Maker/C"):
        resolve("c", listed)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:9000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:80", True),
        ("https://api.example.com/v1", False),
        ("http://192.168.1.5/v1", False),
        ("http://localhost.example.com", False),
        ("${NOT_SET_ANYWHERE}", False),
        ("", True),
    ],
)
def test_what_stays_in_this_machine(tmp_path: Path, url: str, here: bool) -> None:
    """A model of another server is local only if that server listens on loopback here."""
    engine = f"upstream_base_url: '{url}'" if url else "command: serve"
    assert resolve("a", own(tmp_path, f"models:\n- {{name: a, {engine}}}\n")).on_this_machine == here


def test_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision of the catalogue is a branch or tag that was pulled, or a commit."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    tagged = pulled(tmp_path, "Maker/M", "c1", "v1")
    newer = pulled(tmp_path, "Maker/M", "c2")
    text = "models:\n- {name: a, hf_repo_id: Maker/M, revision: v1}\n- {name: b, hf_repo_id: Maker/M, revision: c2}\n"
    listed = own(tmp_path, text + "- {name: c, hf_repo_id: Maker/M, revision: v9}\n")
    assert (resolve("a", listed).folder, resolve("b", listed).folder) == (tagged, newer)
    with pytest.raises(WeightsMissing, match="run: llmproxy pull Maker/M"):
        resolve("c", listed)


def test_pickled_weights(tmp_path: Path) -> None:
    """A model that comes only as PyTorch files is a model too."""
    folder = model_in(tmp_path, weights=False)
    (folder / "pytorch_model.bin").write_bytes(bytes(1 << 20))
    assert resolve(str(folder)).need().memory_mb == 601


def ctranslate_in(folder: Path, **config: Any) -> Path:
    """A folder that looks like a model of CTranslate2, of one MiB."""
    model_in(folder, config=config, weights=False)
    (folder / "model.bin").write_bytes(bytes(1 << 20))
    (folder / "vocabulary.json").write_text("[]")
    return folder


def test_a_whisper_of_ctranslate(tmp_path: Path) -> None:
    """A Whisper in the form of CTranslate2 is speech; other models of that form need a handler."""
    weights = resolve(str(ctranslate_in(tmp_path / "whisper", suppress_ids=[1], alignment_heads=[[0, 0]])))
    assert (weights.kind, weights.capabilities, weights.context_tokens) == ("speech", {"speech"}, None)
    assert weights.need().memory_mb == 601
    other = ctranslate_in(tmp_path / "other", bos_token="<s>")
    with pytest.raises(WeightsMissing, match="a model of CTranslate2 that is no Whisper"):
        resolve(str(other))
    listed = own(tmp_path, f"models:\n- {{name: a, hf_repo_id: {other}, handler: my.Own, capabilities: [chat]}}\n")
    assert resolve("a", listed).handler == "my.Own"


def test_other_weights_beside_those_of_ctranslate(tmp_path: Path) -> None:
    """A folder with weights of transformers is a model of transformers, whatever else is in it."""
    folder = ctranslate_in(tmp_path / "both", architectures=["LlamaForCausalLM"])
    (folder / "model.safetensors").touch()
    assert resolve(str(folder)).kind == "chat"


def test_a_pull_of_ctranslate(tmp_path: Path) -> None:
    """A model in the form of CTranslate2 is pulled with its weights."""
    home = tmp_path / "home"
    home.mkdir()
    with Hub({"Maker/whisper": ctranslate_in(tmp_path / "m", suppress_ids=[1])}) as hub:
        pulled = command("pull", "Maker/whisper", home=home, env={"HF_ENDPOINT": hub.url})
    assert (pulled.returncode, pulled.stderr.count("Error")) == (0, 0), pulled.stderr
    (folder,) = (home / ".cache" / "huggingface" / "hub" / "models--Maker--whisper" / "snapshots").iterdir()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.bin", "vocabulary.json"}


def test_a_pull_by_name(tmp_path: Path) -> None:
    """A model of the catalogue is pulled by its name; its pickled weights only because it has no others."""
    home, repository = tmp_path / "home", model_in(tmp_path / "m", weights=False)
    home.mkdir()
    for name in ("pytorch_model.bin", "README.md"):
        (repository / name).write_bytes(b"0")
    with Hub({"BAAI/bge-m3": repository}) as hub:
        pulled = command("pull", "bge-m3", home=home, env={"HF_ENDPOINT": hub.url})
    assert (pulled.returncode, pulled.stderr.count("Error")) == (0, 0), pulled.stderr
    (folder,) = (home / ".cache" / "huggingface" / "hub" / "models--BAAI--bge-m3" / "snapshots").iterdir()
    assert {path.name for path in folder.iterdir()} == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize("name", ["remote", "folder", "fetches"])
def test_nothing_to_download(tmp_path: Path, name: str) -> None:
    """What another server has, what is a folder, and what says so itself is not downloaded."""
    listed = own(
        tmp_path,
        f"models:\n- {{name: remote, upstream_base_url: 'http://h'}}\n- {{name: folder, hf_repo_id: {tmp_path}}}\n"
        "- {name: fetches, hf_repo_id: Maker/M, skip_download: true}\n",
    )
    with pytest.raises(WeightsMissing, match=f"nothing to download for {name}"):
        pull(name, listed)
