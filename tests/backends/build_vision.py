"""A small Qwen3-VL with random weights, its tokenizer trained on the spot: as real as any, but for what it says."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from tests.backends.build import CORPUS, END, TURN, TURN_END

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CONTEXT_TOKENS = 1024
PATCH = 8
MERGE = 2
TEMPLATE = """
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}
{%- for part in message.content %}
{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}
{%- for call in message.tool_calls %}
<tool_call>
{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def build_vision_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the marks of images."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, TURN, TURN_END, *MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=TURN_END, pad_token=END, clean_up_tokenization_spaces=False
    )


def build_vision_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Two layers of text with a hidden size of 64, two of vision; `mrope_section` sums to half the head dim."""
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(MARKS))
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT_TOKENS,
        "initializer_range": 0.3,  # large, so that every token of the prompt matters for what is said
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.3,
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )


def build_vision_model(folder: Path, *, seed: int = 0) -> Path:
    """A Qwen3-VL of about 150,000 parameters in `folder`; the same seed gives the same greedy text."""
    tokenizer = build_vision_tokenizer()
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(build_vision_config(tokenizer)).float()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    save_processor(folder, tokenizer)
    return folder


def save_processor(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The files of a processor as the published checkpoints have them. Of each image 1 to 16 tokens are made."""
    side = PATCH * MERGE
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    images = {
        **sizes,
        "size": {"shortest_edge": side * side, "longest_edge": 16 * side * side},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
    }
    videos = {**sizes, "video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer.save_pretrained(folder)
