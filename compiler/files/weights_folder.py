"""What the folder of published weights says besides the weights: architecture, tokenizer, chat
template, ends of texts. Reads small files of JSON and text, and never runs code from the folder.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...spec.findings.diagnostics import Report
from ...spec.record import Record
from ...spec.schema import recipe as r
from .published_config import Described, describe
from .published_weights import CONFIG, own_output

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
GENERATION = "generation_config.json"
SPECIAL = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
READ = (CONFIG, TOKENIZER, SETTINGS, SPECIAL, GENERATION, TEMPLATE)
"""The files whose contents a plan depends on, as far as they are there."""
_MARKS = {"chatml": ("<|im_start|>", "<|im_end|>"), "llama3": ("<|start_header_id|>", "<|eot_id|>")}
"""Built-in protocol → special tokens that a tokenizer made for it has."""
_ONE = "download all files of the weights again, from one revision"


class Unusable(Exception):
    """A folder does not say what a model is.

    Attributes:
        code: of the finding.
    """

    def __init__(self, code: str, message: str, help: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help


class WeightsFolder(Record):
    """The contents of a folder of published weights.

    Attributes:
        described: the architecture; `described.model` is there.
        untied: whether the files have an output matrix of their own although config.json ties it.
        dtype: the type of the stored weights, as config.json says; "" if it does not.
        tokenizer: whether there is a tokenizer.json.
        dialog: the settings of the chat protocol, with paths relative to the folder; None if there
            is no chat template and the tokenizer has the tokens of no built-in protocol.
        end: the token that ends a text, "" if no file names one.
        stops: ids of the tokens that end a generation.
        files: name → SHA-256 of the contents, of every file that was read.
    """

    described: Described
    untied: bool
    dtype: str
    tokenizer: bool
    dialog: dict[str, Any] | None
    end: str
    stops: tuple[int, ...]
    files: dict[str, str]


def read_folder(folder: Path, shown: str, family: str = "") -> WeightsFolder:
    """Reads the folder.

    Args:
        shown: the folder for people, as the spec writes it.
        family: the one that the spec names.

    Raises: Unusable: a file is missing or broken, or no family computes what they describe.
    """
    contents = {name: data for name in READ if (data := _content(folder, name, shown)) is not None}
    if CONFIG not in contents:
        raise Unusable(
            "E548",
            f"the folder `{shown}` has no {CONFIG}, which says what the weights are",
            f"download the weights with all their files into {folder.absolute()}",
        )
    config = _object(contents[CONFIG], f"{shown}/{CONFIG}")
    described = describe(config, family)
    if described.problems or described.model is None:
        problem = described.problems[0]
        raise Unusable(
            "E543",
            f"{shown}/{CONFIG} {problem.message}",
            problem.help,
        )
    settings = _optional(contents, SETTINGS, shown)
    generation = _optional(contents, GENERATION, shown)
    stops = generation.get("eos_token_id", config.get("eos_token_id"))
    return WeightsFolder(
        described=described,
        untied=described.model.tied and own_output(folder),
        dtype=_dtype(config),
        tokenizer=TOKENIZER in contents,
        dialog=_dialog(contents, settings),
        end=_token(settings.get("eos_token"))
        or _token(_optional(contents, SPECIAL, shown).get("eos_token")),
        stops=tuple(
            each
            for each in (stops if isinstance(stops, list) else [stops])
            if isinstance(each, int) and not isinstance(each, bool)
        ),
        files={name: _digest(data) for name, data in contents.items()},
    )


def lacking(folder: Path) -> str:
    """What is missing in a folder of weights; "" if nothing is. Weights are read from
    safetensors."""
    if not (folder / CONFIG).is_file():
        return CONFIG
    if any(folder.glob("*.safetensors")):
        return ""
    others = [path.name for kind in ("*.bin", "*.pth") for path in sorted(folder.glob(kind))]
    return "model.safetensors" + (f"; it has {others[0]}" if others else "")


def completed(folder: Path) -> str:
    """How to get what a folder of weights lacks."""
    made = [*folder.glob("*.bin"), *folder.glob("*.pth")]
    if (folder / CONFIG).is_file() and any(path.suffix == ".bin" for path in made):
        where = json.dumps(str(folder.absolute()), ensure_ascii=False)
        return (
            "convert them, in Python with transformers: "
            f"`AutoModelForCausalLM.from_pretrained({where}).save_pretrained({where})`"
        )
    return f"download the weights with all their files into {folder.absolute()}"


def report_lacking(folder: Path, written: str, model: r.Model, report: Report) -> None:
    """Reports a folder without its configuration, or without weights."""
    if what := lacking(folder):
        report.add(
            "E494",
            f"the folder `{written}` of the model `{model.name}` lacks {what}",
            model.at("weights"),
            help=completed(folder),
        )


def digest(path: Path) -> str | None:
    """The SHA-256 of a file's contents; None if it cannot be read."""
    try:
        return _digest(path.read_bytes())
    except OSError:
        return None


def _content(folder: Path, name: str, shown: str) -> bytes | None:
    """The contents of a file; None if it does not exist."""
    path = folder / name
    try:
        state = path.stat()
        return _cached(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise Unusable(
            "E548",
            f"{shown}/{name} cannot be read: {reason.lower()}",
            "make sure that the file exists and that you may read it",
        ) from None


@lru_cache(maxsize=64)
def _cached(path: Path, changed: int, size: int) -> bytes:
    """The contents of a file in this state: an editor asks after every keystroke."""
    return path.read_bytes()


@lru_cache(maxsize=64)
def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _object(data: bytes, shown: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as problem:
        raise Unusable("E548", f"{shown} is not JSON: {problem}", _ONE) from None
    if not isinstance(found, dict):
        raise Unusable("E548", f"{shown} is not a JSON object", _ONE)
    return found


def _optional(contents: dict[str, bytes], name: str, shown: str) -> dict[str, Any]:
    return _object(contents[name], f"{shown}/{name}") if name in contents else {}


def _dtype(config: dict[str, Any]) -> str:
    given = config.get("dtype") or config.get("torch_dtype")
    names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    return names.get(str(given).removeprefix("torch."), str(given)) if given else ""


def _dialog(contents: dict[str, bytes], settings: dict[str, Any]) -> dict[str, Any] | None:
    """The chat template, or else the built-in protocol for which the tokenizer was made."""
    if TEMPLATE in contents:
        return {"template": TEMPLATE}
    if settings.get("chat_template"):
        return {"template": SETTINGS}
    known = contents.get(TOKENIZER, b"")
    for protocol, marks in _MARKS.items():
        if all(json.dumps(mark).encode() in known for mark in marks):
            return {"protocol": protocol}
    return None


def _token(value: Any) -> str:
    """The text of a token, which may be given with its properties."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
