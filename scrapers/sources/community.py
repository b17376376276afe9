"""What lists that people keep have in common: which provider and model a row means, and the claims made of it. Pure.

Such lists disagree with the providers' pages and with each other, so they rank below those pages, and each has the
confidence that its care deserves. zukixa/cool-ai-stuff is none of them: it ranks resellers and reverse-engineered
proxies, names no provider of the catalog and tells no limits.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from scrapers.amounts import number, rates
from scrapers.base import LIMIT_FIELDS, Evidence, FreeKind, NotUnderstood, Value
from scrapers.ids import normalised
from scrapers.pages import decoded

Amounts = dict[str, Value]

# A provider by the end of a host name; "" is a service that is known and none of the catalog's.
HOSTS = {
    "ai.google.dev": "google", "aistudio.google.com": "google", "generativelanguage.googleapis.com": "google",
    "aihorde.net": "aihorde", "bigmodel.cn": "zhipu", "cerebras.ai": "cerebras", "chutes.ai": "chutes",
    "cloud.ovh.net": "ovhcloud", "cloudflare.com": "cloudflare-workers", "codestral.mistral.ai": "",
    "cohere.ai": "cohere", "cohere.com": "cohere", "deepinfra.com": "deepinfra", "deepseek.com": "deepseek",
    "fireworks.ai": "fireworks", "gateway.ai.cloudflare.com": "cloudflare-ai-gateway", "github.ai": "github",
    "groq.com": "groq", "huggingface.co": "huggingface", "hyperbolic.ai": "hyperbolic",
    "hyperbolic.xyz": "hyperbolic", "kilo.ai": "kilo", "llm7.io": "llm7", "minimax.io": "minimax",
    "mistral.ai": "mistral", "models.inference.ai.azure.com": "github", "modelscope.cn": "modelscope",
    "moonshot.ai": "moonshot", "moonshot.cn": "moonshot", "nebius.ai": "nebius", "nebius.com": "nebius",
    "novita.ai": "novita", "nvidia.com": "nvidia", "ollama.com": "ollama-cloud", "opencode.ai": "opencode-zen",
    "openrouter.ai": "openrouter", "ovhcloud.com": "ovhcloud", "pollinations.ai": "pollinations",
    "requesty.ai": "requesty", "sambanova.ai": "sambanova", "scaleway.ai": "scaleway", "scaleway.com": "scaleway",
    "together.ai": "together", "together.xyz": "together", "venice.ai": "venice", "vercel.com": "vercel",
    "vercel.sh": "vercel", "x.ai": "xai", "z.ai": "z-ai",
}  # fmt: skip
# A provider by its name, for lists and tables that give no address.
NAMES = {
    "ai horde": "aihorde", "cerebras": "cerebras", "cloudflare workers ai": "cloudflare-workers", "cohere": "cohere",
    "gemini": "google", "github models": "github", "google": "google", "google ai studio": "google",
    "google gemini": "google", "groq": "groq", "hugging face": "huggingface", "huggingface": "huggingface",
    "kilo gateway": "kilo", "llm7": "llm7", "mistral": "mistral", "mistral ai": "mistral", "nvidia": "nvidia",
    "nvidia nim": "nvidia", "ollama cloud": "ollama-cloud", "openrouter": "openrouter",
    "ovh ai endpoints": "ovhcloud", "pollinations": "pollinations", "pollinations.ai": "pollinations",
    "sambanova": "sambanova",
}  # fmt: skip
# What a claim about all free models of a provider is made on, where only such ids are free.
_FREE_IDS = {"anyapi": "*:free", "kilo": "*:free", "nous": "*:free", "openrouter": "*:free"}
# Ids behind display names that do not come down to them by spelling alone, by provider and `normalised` name.
MODELS: dict[str, dict[str, str]] = {
    "cerebras": {
        "llama-3.1-8b": "llama3.1-8b", "llama-3.1-70b": "llama3.1-70b",
        "llama-4-scout": "llama-4-scout-17b-16e-instruct", "llama-4-maverick": "llama-4-maverick-17b-128e-instruct",
        "qwen-3-235b-a22b-instruct": "qwen-3-235b-a22b-instruct-2507",
        "qwen-3-235b-a22b-thinking": "qwen-3-235b-a22b-thinking-2507", "qwen3-235b": "qwen-3-235b-a22b-instruct-2507",
        "z.ai-glm-4.6": "zai-glm-4.6", "z.ai-glm-4.7": "zai-glm-4.7",
    },
    "chutes": {
        "dolphin-3.0-mistral-24b": "cognitivecomputations/Dolphin3.0-Mistral-24B",
        "dolphin-3.0-r1-mistral-24b": "cognitivecomputations/Dolphin3.0-R1-Mistral-24B",
        "qwen-2.5-vl-32b-instruct": "Qwen/Qwen2.5-VL-32B-Instruct",
    },
    "cloudflare-workers": {
        "falcom-7b-instruct": "@cf/tiiuae/falcon-7b-instruct",
        "llama-2-7b-chat-(lora)": "@cf/meta-llama/llama-2-7b-chat-hf-lora",
        "llama-3.2-11b-instruct": "@cf/meta/llama-3.2-11b-vision-instruct",
        "llama-3.3-70b": "@cf/meta/llama-3.3-70b-instruct-fp8-fast",
        "llama-3.3-70b-instruct-(fp8)": "@cf/meta/llama-3.3-70b-instruct-fp8-fast",
        "llama-4-scout-instruct": "@cf/meta/llama-4-scout-17b-16e-instruct",
        "neural-chat-7b-v3.1-(awq)": "@hf/thebloke/neural-chat-7b-v3-1-awq",
        "qwen-1.5-0.5b-chat": "@cf/qwen/qwen1.5-0.5b-chat", "qwen-1.5-1.8b-chat": "@cf/qwen/qwen1.5-1.8b-chat",
        "qwen-1.5-14b-chat-(awq)": "@cf/qwen/qwen1.5-14b-chat-awq",
        "qwen-1.5-7b-chat-(awq)": "@cf/qwen/qwen1.5-7b-chat-awq",
        "qwen-2.5-coder-32b-instruct": "@cf/qwen/qwen2.5-coder-32b-instruct", "qwen-qwq-32b": "@cf/qwen/qwq-32b",
    },
    "cohere": {
        "aya-expanse-32b": "c4ai-aya-expanse-32b", "aya-expanse-8b": "c4ai-aya-expanse-8b",
        "aya-vision-32b": "c4ai-aya-vision-32b", "aya-vision-8b": "c4ai-aya-vision-8b",
        "command-a": "command-a-03-2025", "command-r7b": "command-r7b-12-2024",
    },
    "github": {
        "llama-3.3-70b": "meta/Llama-3.3-70B-Instruct", "mistral-medium-3-(25.05)": "mistral-ai/mistral-medium-2505",
        "mistral-small-3.1": "mistral-ai/mistral-small-2503", "openai-gpt-5-chat-(preview)": "openai/gpt-5-chat",
        "phi-3-medium-instruct-(128k)": "microsoft/Phi-3-medium-128k-instruct",
        "phi-3-medium-instruct-(4k)": "microsoft/Phi-3-medium-4k-instruct",
        "phi-3-mini-instruct-(128k)": "microsoft/Phi-3-mini-128k-instruct",
        "phi-3-mini-instruct-(4k)": "microsoft/Phi-3-mini-4k-instruct",
        "phi-3-small-instruct-(128k)": "microsoft/Phi-3-small-128k-instruct",
        "phi-3-small-instruct-(8k)": "microsoft/Phi-3-small-8k-instruct",
        "phi-3.5-mini-instruct-(128k)": "microsoft/Phi-3.5-mini-instruct",
        "phi-3.5-moe-instruct-(128k)": "microsoft/Phi-3.5-MoE-instruct",
        "phi-3.5-vision-instruct-(128k)": "microsoft/Phi-3.5-vision-instruct",
    },
    "google": {
        "gemini-2.0-flash-(experimental)": "gemini-2.0-flash-exp", "gemini-3-flash": "gemini-3-flash-preview",
        "gemini-2.5-pro-(experimental)": "gemini-2.5-pro-exp-03-25",
    },
    "groq": {
        "distil-whisper-large-v3": "distil-whisper-large-v3-en", "gemma-2-9b-instruct": "gemma2-9b-it",
        "groq-compound-beta": "compound-beta", "groq-compound-beta-mini": "compound-beta-mini",
        "llama-3-70b": "llama3-70b-8192", "llama-3-8b": "llama3-8b-8192",
        "llama-3-70b---groq-tool-use-preview": "llama3-groq-70b-8192-tool-use-preview",
        "llama-3-8b---groq-tool-use-preview": "llama3-groq-8b-8192-tool-use-preview",
        "llama-3.1-70b": "llama-3.1-70b-versatile", "llama-3.1-8b": "llama-3.1-8b-instant",
        "llama-3.2-11b": "llama-3.2-11b-text-preview", "llama-3.2-90b": "llama-3.2-90b-text-preview",
        "llama-3.2-11b-vision": "llama-3.2-11b-vision-preview", "llama-3.2-90b-vision": "llama-3.2-90b-vision-preview",
        "llama-3.2-1b": "llama-3.2-1b-preview", "llama-3.2-3b": "llama-3.2-3b-preview",
        "llama-3.3-70b": "llama-3.3-70b-versatile", "llama-3.3-70b-(speculative-decoding)": "llama-3.3-70b-specdec",
        "llama-4-scout": "meta-llama/llama-4-scout-17b-16e-instruct",
        "llama-4-scout-instruct": "meta-llama/llama-4-scout-17b-16e-instruct",
        "llava-1.5-7b": "llava-v1.5-7b-4096-preview", "mixtral-8x7b": "mixtral-8x7b-32768",
    },
    "huggingface": {
        "llama-3.3-70b": "meta-llama/Llama-3.3-70B-Instruct", "qwen2.5-72b": "Qwen/Qwen2.5-72B-Instruct",
    },
    "hyperbolic": {
        "llama-3-70b-instruct": "meta-llama/Meta-Llama-3-70B-Instruct",
        "llama-3.1-405b-base": "meta-llama/Meta-Llama-3.1-405B",
        "llama-3.1-405b-base-(fp8)": "meta-llama/Meta-Llama-3.1-405B-FP8",
        "llama-3.1-405b-instruct": "meta-llama/Meta-Llama-3.1-405B-Instruct",
        "llama-3.1-70b-instruct": "meta-llama/Meta-Llama-3.1-70B-Instruct",
        "llama-3.1-8b-instruct": "meta-llama/Meta-Llama-3.1-8B-Instruct",
        "qwen-qwq-32b": "Qwen/QwQ-32B", "qwen-qwq-32b-preview": "Qwen/QwQ-32B-Preview",
    },
    "mistral": {"mistral-large-3": "mistral-large-2512"},
    "nvidia": {"llama-3.3-70b": "meta/llama-3.3-70b-instruct"},
    "openrouter": {
        "deepseek-r1": "deepseek/deepseek-r1:free", "gemma-2-9b-instruct": "google/gemma-2-9b-it:free",
        "gpt-oss-120b": "openai/gpt-oss-120b:free",
        "hermes-3-llama-3.1-405b": "nousresearch/hermes-3-llama-3.1-405b:free",
        "llama-3-8b-instruct": "meta-llama/llama-3-8b-instruct:free",
        "llama-3.1-8b-instruct": "meta-llama/llama-3.1-8b-instruct:free",
        "llama-3.2-11b-instruct": "meta-llama/llama-3.2-11b-vision-instruct:free",
        "llama-3.3-70b": "meta-llama/llama-3.3-70b-instruct:free",
        "mistral-7b-instruct": "mistralai/mistral-7b-instruct:free", "mythomist-7b": "gryphe/mythomist-7b:free",
        "openchat-7b": "openchat/openchat-7b:free",
        "phi-3-medium-128k-instruct": "microsoft/phi-3-medium-128k-instruct:free",
        "phi-3-mini-128k-instruct": "microsoft/phi-3-mini-128k-instruct:free",
        "qwen-2-7b-instruct": "qwen/qwen-2-7b-instruct:free", "toppy-m-7b": "undi95/toppy-m-7b:free",
        "zephyr-7b-beta": "huggingfaceh4/zephyr-7b-beta:free",
    },
    "ovhcloud": {
        "llama-3.1-70b-instruct": "Meta-Llama-3_1-70B-Instruct",
        "llama-3.3-70b-instruct": "Meta-Llama-3_3-70B-Instruct",
        "mistral-nemo-2407": "Mistral-Nemo-Instruct-2407", "qwen-2.5-vl-72b-instruct": "Qwen2.5-VL-72B-Instruct",
    },
    "sambanova": {
        "llama-3.1-405b": "Meta-Llama-3.1-405B-Instruct", "llama-3.1-70b": "Meta-Llama-3.1-70B-Instruct",
        "llama-3.1-8b": "Meta-Llama-3.1-8B-Instruct", "llama-3.2-1b": "Meta-Llama-3.2-1B-Instruct",
        "llama-3.2-3b": "Meta-Llama-3.2-3B-Instruct", "llama-3.2-11b-vision": "Llama-3.2-11B-Vision-Instruct",
        "llama-3.2-90b-vision": "Llama-3.2-90B-Vision-Instruct", "llama-3.3-70b": "Meta-Llama-3.3-70B-Instruct",
        "llama-guard-3-8b": "Meta-Llama-Guard-3-8B",
    },
    "scaleway": {"mistral-nemo-2407": "mistral-nemo-instruct-2407"},
    "together": {
        "deepseek-r1-distil-llama-70b": "deepseek-ai/DeepSeek-R1-Distill-Llama-70B-free",
        "llama-3.2-11b-vision-instruct": "meta-llama/Llama-Vision-Free",
        "llama-3.3-70b-instruct": "meta-llama/Llama-3.3-70B-Instruct-Turbo-Free",
    },
}  # fmt: skip

# Longer than any name or note of a real list; what is longer is cut, so that the work stays linear in the page.
_LONGEST_NAME = 200
_LONGEST_TEXT = 2000
_MOST = 1e13
_UNLIMITED = 2.0**31 - 1  # how some write that there is no limit
_RANGE = re.compile(r"\d[\d,.]*\s?[KMB]?\s*[-–]\s*\d[\d,.]*\s?[KMB]?", re.IGNORECASE)
_CLAUSE = re.compile(r"[;\n]|(?:, |\. )(?![^()]*\))")
_PARENTHESES = re.compile(r"\([^()]*\)")
_PAID = re.compile(
    r"\bwith \$|\btop-?up\b|\bonce \d|\bpaid\b|\bdeveloper tier\b|\bsubscri|\bcosts?\b|\bbill(?:s|ed)\b|\boverage\b|"
    r"(?-i:\bP(?:RO|ro)\b)",
    re.IGNORECASE,
)
_CONCURRENT = re.compile(r"(\d[\d,]*)\s+concurrent\b", re.IGNORECASE)
_PER_REQUEST = re.compile(r"([\d.,]+K?)\s*in(?:put)?\s*/\s*([\d.,]+K?)\s*out(?:put)?\b", re.IGNORECASE)
_DOLLARS = re.compile(r"\$\s?(\d[\d,]*(?:\.\d+)?)")
_MONTHLY_CREDIT = re.compile(r"\bcredits? per month\b|\bmonthly credits?\b", re.IGNORECASE)
_TOKENS = re.compile(r"(\d[\d,.]*\s?[KMB]?)\s+(?:free\s+)?tokens\b", re.IGNORECASE)
_CALLS = re.compile(r"(\d[\d,.]*\s?[KMB]?)\s+(?:API\s+)?(?:calls|requests)\b", re.IGNORECASE)
_NOT_CHAT = re.compile(
    r"whisper|embed|rerank|(?<!safe)guard|\btts\b|orpheus|transcri|moderation|content-safety|\bocr\b|\bbge-|\be5-|"
    r"sentence-t5|nvclip|stable-diffusion|flux|imagen|image-generation|qwen-image|\blyria\b|\bveo\b",
    re.IGNORECASE,
)
_BUDGETS = ("neurons_", "credits_", "usd_")


def provider_of(name: str, *links: str) -> str | None:
    """The id of the catalog's provider that a list means by a name and the addresses beside it; None for others."""
    found = NAMES.get(name.strip().casefold())
    if found is None:
        found = next((host for link in links if (host := _of_host(link)) is not None), None)
    return found or None


def _of_host(link: str) -> str | None:
    try:
        parts = urlsplit(link if "//" in link else f"//{link}")
        host = parts.hostname or ""
    except ValueError:
        return None
    if host == "github.com":  # one host for everything that anybody keeps there
        return "github" if parts.path.startswith(("/marketplace/models", "/settings/")) else None
    labels = host.split(".")[-6:]
    ends = (".".join(labels[start:]) for start in range(len(labels)))
    return next((HOSTS[end] for end in ends if end in HOSTS), None)


def all_free(provider: str) -> str:
    """The glob for all models of a provider that can be free."""
    return _FREE_IDS.get(provider, "*")


def model_of(provider: str, text: str) -> str:
    """A display name as the provider would write it; an id, or what is not known, as it stands; "" if it is no name."""
    text = text.strip().strip("`").strip()
    if len(text) > _LONGEST_NAME:
        return ""
    if (found := mapped(provider, text)) is not None:
        return found
    if provider == "sambanova":  # its ids carry no organisation, lists write the one of the weights
        text = text.rpartition("/")[2]
    if not re.search(r"[\s(+]", text):
        return text
    text = re.sub(r"\s*\(([^()]*)\)", r" \1", text.removeprefix("OpenAI "))
    text = re.sub(r"(?<=\w)\+", " plus", text)
    text = re.sub(r"\b(2\d)\.(\d\d)\b", r"\1\2", text)  # a release by year and month: `Codestral 25.01`
    # Google's ids end in `-it` for what people write as `Instruct`.
    return re.sub(r"^(gemma .*?)\binstruct\b", r"\1it", text, flags=re.IGNORECASE)


def mapped(provider: str, text: str) -> str | None:
    """The id behind a display name that is written down here; None for others."""
    return MODELS.get(provider, {}).get(normalised(text))


def not_chat(model: str) -> bool:
    """Whether a name says that the model does not converse: speech, embeddings, moderation, images, …"""
    return _NOT_CHAT.search(re.sub(r"[\s_]+", "-", model)) is not None


def clauses(text: str) -> list[str]:
    """The statements of a piece of prose, without those about what has to be paid for."""
    parts = _CLAUSE.split(text[:_LONGEST_TEXT])
    return [part for part in parts if not _PAID.search(_PARENTHESES.sub("", part))]


def amounts_in(text: str) -> Amounts:
    """The free limits in prose, by the name of their field; a range (`5-15 RPM`) tells no number and is left out."""
    found: Amounts = {}
    for clause in clauses(text):
        stated = {name: value for name, value in rates(_RANGE.sub(" ", clause)).items() if name in LIMIT_FIELDS}
        if match := _CONCURRENT.search(clause):
            stated["concurrency"] = number(match[1]) or 0.0
        if match := _PER_REQUEST.search(clause):
            stated |= {"max_prompt_tokens": number(match[1]) or 0.0, "max_completion_tokens": number(match[2]) or 0.0}
        for name, value in stated.items():
            if 0 < value < _MOST:
                found.setdefault(name, value)
    once = _DOLLARS.findall(text[:_LONGEST_TEXT])
    if not found and len(once) == 1 and _MONTHLY_CREDIT.search(text[:_LONGEST_TEXT]):
        found["usd_per_month"] = number(once[0])
    return found


def once_in(text: str) -> Amounts:
    """A one-time credit (`$5 for 3 months`, `1,000,000 free tokens`, `1000 API calls`); the first of several."""
    for name, pattern in (("usd_once", _DOLLARS), ("tokens_once", _TOKENS), ("requests_once", _CALLS)):
        match = pattern.search(text[:_LONGEST_TEXT])
        if match and 0 < (value := number(match[1]) or 0.0) < _MOST:
            return {name: value}
    return {}


def is_budget(name: str) -> bool:
    """Whether a limit is counted in money or a provider's own unit; an account has one such budget for all models."""
    return name.startswith(_BUDGETS)


def kind_of(amounts: Amounts) -> FreeKind:
    """How free something is, by its limits: a budget; free of charge if only concurrency is limited; else a quota."""
    if any(is_budget(name) for name in amounts):
        return "budget"
    return "price" if set(amounts) == {"concurrency"} else "quota"


def model_claims(
    provider: str, model: str, free: FreeKind | None, amounts: Amounts | None = None, *, dated: str = ""
) -> list[Evidence]:
    """What a row says of one model; `free` None: whether it is free stands elsewhere. No claims without a name."""
    if not model:
        return []
    fields: dict[str, Value] = {"exists": True}
    fields |= {} if free is None else {"free": free}
    fields |= {f"limit.{name}": value for name, value in (amounts or {}).items()}
    fields |= {"chat": False} if not_chat(model) else {}
    return [Evidence(provider, model, field, value, dated=dated) for field, value in fields.items()]


def account_claims(
    provider: str, free: FreeKind | None, amounts: Amounts, *, shared: bool = True, note: str = "", dated: str = ""
) -> list[Evidence]:
    """What a list says of all models of a provider at once; `shared`: they use the limits up together."""
    model = "*" if free == "trial" else all_free(provider)
    claims = [] if free is None else [Evidence(provider, model, "free", free, note=note, dated=dated)]
    return claims + [
        Evidence(provider, model, f"limit.{name}", value, _together(name, shared), note, dated)
        for name, value in amounts.items()
    ]


def _together(name: str, shared: bool) -> bool:
    return is_budget(name) or (shared and not name.startswith("max_"))


def document(raw: bytes) -> Any:
    """The JSON of a list; raises `NotUnderstood`."""
    try:
        return json.loads(decoded(raw))
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"no JSON: {error}") from error


def records(holder: object, name: str) -> list[dict[str, Any]]:
    """The objects of the array under `name`; what is no object is left out, and what is no array holds none."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def words(record: dict[str, Any], name: str) -> str:
    """A string field, "" where it is missing or something else."""
    value = record.get(name)
    return value.strip() if isinstance(value, str) else ""


def day(record: dict[str, Any], name: str) -> str:
    """A day (`2026-04-17`) that a list gives itself; "" where it gives none."""
    text = words(record, name)[:10]
    return text if re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", text) else ""


def amount(value: object) -> float | None:
    """A JSON number that can be a limit or a size; None for others (-1, null, a string, no limit)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < _MOST and value != _UNLIMITED else None
