"""Whispers of transformers, converted to the form of CTranslate2 once. In worker processes only.

A conversion is kept in the cache of the user, under a digest of the folder that it was made of. It is made in a folder
of its own and renamed when it is complete; who wants the same one meanwhile waits. It may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctranslate2.converters import TransformersConverter
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, GenerationConfig

from llmproxy.core.env import cache_folder

# The most tokens that the decoder of every released Whisper reads and writes.
MOST_POSITIONS = 448
_FORM = 1  # counts up when conversions of before are of no use
_MARKER = "llmproxy.json"


def converted(folder: Path, compute_type: str, *, trust_remote_code: bool = False) -> Path:
    """The folder with the conversion of a Whisper of transformers, which is made if it is not there, or is broken.

    Raises whatever keeps transformers from loading it, CTranslate2 from converting it, or the disk from holding it.
    """
    cache = cache_folder() / "whisper"
    key = _digest(folder, compute_type)
    target = cache / key
    if _is_whole(target):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / f"{key}.lock"):
        if not _is_whole(target):  # while this one waited, another may have made it
            for left in cache.glob(f"{key}.*.part"):  # of a process that was ended
                shutil.rmtree(left, ignore_errors=True)
            _make(folder, compute_type, target, trust_remote_code)
    return target


@dataclass(frozen=True, slots=True)
class Facts:
    """What conversions of our own tell of their model beyond CTranslate2's: the most tokens that its decoder reads and
    writes, and whether it knows other languages than English (None: not told)."""

    positions: int = MOST_POSITIONS
    multilingual: bool | None = None


def facts_of(folder: Path) -> Facts:
    """What is known of the model in the form of CTranslate2 in a folder."""
    return Facts(**_marker(folder).get("facts", {}))


def _digest(folder: Path, compute_type: str) -> str:
    """What a conversion depends on: the folder, the sizes and times of its files, and what weights become."""
    files = sorted((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    known = [_FORM, str(folder.resolve()), compute_type]
    known += [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]


def _make(folder: Path, compute_type: str, target: Path, trust_remote_code: bool) -> None:
    """Convert into a folder beside the target, then rename it; the lock is held."""
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part"))
    try:
        facts = _convert(folder, compute_type, part, trust_remote_code)
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        marker = {"source": str(folder.resolve()), "compute_type": compute_type, "facts": asdict(facts), "files": sizes}
        (part / _MARKER).write_text(json.dumps(marker), "utf-8")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert(folder: Path, compute_type: str, out: Path, trust_remote_code: bool) -> Facts:
    """Write the model, the tokenizer and what makes features."""
    options = {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(folder, **options)
    if config.model_type != "whisper":
        raise ValueError(f"{folder} is a {config.model_type} and not a Whisper")
    TransformersConverter(str(folder), **options).convert(str(out), quantization=compute_type, force=True)
    AutoTokenizer.from_pretrained(folder, **options).backend_tokenizer.save(str(out / "tokenizer.json"))
    AutoFeatureExtractor.from_pretrained(folder, **options).save_pretrained(out)
    generation = GenerationConfig.from_pretrained(folder)
    return Facts(config.max_target_positions, bool(getattr(generation, "is_multilingual", True)))


def _is_whole(folder: Path) -> bool:
    """Whether a conversion has all its files, in their sizes."""
    files = _marker(folder).get("files")
    if not files:
        return False
    try:
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def _marker(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / _MARKER).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, which ends with the process at the latest. The file stays: to delete it would let two hold it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
