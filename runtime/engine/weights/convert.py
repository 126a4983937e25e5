"""Converts published Hugging Face weights to a checkpoint of the engine."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem

from ....compiler.as_written import counted
from ....compiler.families import FAMILIES
from ....compiler.files.published_config import alike, describe
from ....compiler.files.published_weights import (
    EMBEDDINGS,
    OUTPUT,
    OUTPUTS,
    differences,
    further_tokens,
    lacks_modules,
    named,
)
from ....compiler.plan.plan import WeightsJob
from ....compiler.values import Architecture
from ... import stopping
from ...disk import move, write
from ...errors import DataError
from ...weight_files import CONFIG, WHOLE, files, find, read_json
from ..checkpoints.storage import HEAD, write_tensors, writing
from ..device import prepare_any
from .further import COPIES

SOURCE = "source.json"
SCORE = "score.weight"
"""transformers' name of the head of a classifier."""
TABLE = "tok_embeddings.weight"
ROWS = 4096
"""Rows of embedding and output that are compared at once."""
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ROPE = (
    "rope_theta",
    "rope_type",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
)
_ASIDE = (
    "architectures",
    "model_type",
    "pad_token_id",
    "bos_token_id",
    "max_position_embeddings",
    "rope_parameters",
    "rope_theta",
    "tie_word_embeddings",
    "sliding_window",
    "layer_types",
    "head_dim",
    "intermediate_size",
    "original_max_position_embeddings",
    "new_decoder_architecture",
    "num_ln_in_parallel_attn",
    "num_kv_heads",
    "no_rope_layer_interval",
    "sliding_window_pattern",
    "attention_types",
    "max_window_layers",
    "num_nextn_predict_layers",
)
"""Fields that are compared elsewhere, or do not concern the weights."""


def weights(job: WeightsJob, folder: Path, *, root: Path) -> dict[str, Any]:
    """Writes the weights into `folder/result/weights`, in their own precision, and their origin
    into `source.json`: the folder or repository, and sizes and checksums of the files.

    One tensor is in memory at a time.

    Args:
        root: the spec's folder, which relative folders start from.

    Returns: `tensors` and `parameters`, counted, and `notes` on inconsistencies between the files.
    Raises:
        DataError: there are no such weights, or they do not fit the job's model; the message names
            file and tensor.
        Stopped: the disk cannot take the result.
    """
    prepare_any()
    source = find(job.source, root)
    with _Tensors(source) as there:
        output = there.output() if job.head == "tokens" else None
        notes = check_config(job.model, source, job.id, output=output, head=job.head)
        config = read_json(source / CONFIG)
        model = named(job.model, config["model_type"])
        notes += there.leave_out(_further(model, config))
        there.shared(model)
        wanted = parts(model, job.head)
        _check(wanted, there, job.id, model, job.head)
        partial, result = folder / "result.partial", folder / "result"
        for each in (partial, result):
            shutil.rmtree(each, ignore_errors=True)
        empty = {
            name: torch.empty(shape, dtype=there.dtype(theirs), device="meta")
            for name, (shape, theirs) in wanted.items()
        }
        with writing(partial):
            partial.mkdir(parents=True)
            write_tensors(empty, partial / "weights", _Reading(model, job.head, wanted, there))
            origin = {**job.source, "from": str(source.resolve()), "files": there.checksums()}
            write(partial / SOURCE, json.dumps(origin, indent=1) + "\n")
            move(partial, result)
    sizes = {name: tensor.numel() for name, tensor in empty.items()}
    if job.model.tied and job.head == "tokens":
        del sizes[HEAD]
    return {"tensors": len(there.places), "parameters": sum(sizes.values()), "notes": notes}


def _further(model: Architecture, config: Mapping[str, Any]) -> list[str]:
    """How the names begin of layers that predict further tokens (arXiv:2412.19437 §2.2), which
    stand behind the model's own, as far as the model has none of them."""
    depths = range(model.mtp, further_tokens(config))
    return [f"model.layers.{model.layers + number}." for number in depths]


Parts = dict[str, tuple[torch.Size, dict[str, torch.Size]]]
"""Engine tensor → its shape, and the published tensors that it is made from."""


def parts(model: Architecture, head: str = "tokens") -> Parts:
    """What the engine's tensors are made from; tensors without sources begin as zeros.

    Args:
        head: "score" of a reward model.
    """
    with torch.device("meta"):
        state = _spec(model, head).model.build().state_dict()
    adapter = _adapter(model)
    found: Parts = {}
    sources = getattr(adapter, "sources", lambda name, tensor: adapter.to_hf({name: tensor}))
    for name, tensor in state.items():
        if head == "score" and name == HEAD:
            found[name] = tensor.shape, {SCORE: tensor.shape}
            continue
        theirs = sources(TABLE if model.tied and name == HEAD else name, tensor)
        found[name] = tensor.shape, {their: each.shape for their, each in theirs.items()}
    return found


def _spec(model: Architecture, head: str = "tokens") -> Any:
    from ..families import model_spec

    # The adapter of a tied model requires the embedding in every input.
    untied = Architecture(**{**vars(model), "tied": False})
    if head == "score":
        return model_spec(untied, "cpu", model.context, "score")
    return model_spec(untied, "cpu", model.context, further=True)


def _adapter(model: Architecture) -> Any:
    spec = _spec(model)
    assert spec.state_dict_adapter is not None
    return spec.state_dict_adapter(spec.model, None)


class _Tensors:
    """The tensors in a folder of safetensors files, read one by one.

    Attributes:
        places: tensor → file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        places = files(folder)
        self._open: dict[str, Any] = {}
        for file in sorted(set(places.values())) if places else [WHOLE]:
            try:
                self._open[file] = self._stack.enter_context(
                    safe_open(folder / file, framework="pt")
                )
            except (SafetensorError, OSError) as problem:
                raise DataError(
                    f"{folder / file} is truncated, or not a safetensors file: {problem}",
                    "download the file again",
                ) from None
        there: dict[str, str] = {}
        for file, each in self._open.items():
            there |= dict.fromkeys(each.keys(), file)
        for name, file in (places or {}).items():
            if there.get(name) != file:
                raise DataError(
                    f"{folder / file} lacks the tensor {name}, which the index says it has",
                    "download the file and the index again, from one revision",
                )
        self.places: dict[str, str] = there

    def __enter__(self) -> "_Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def leave_out(self, beginnings: list[str]) -> list[str]:
        """Forgets tensors whose names begin so; returns a note on each beginning that is there."""
        found = [of for of in beginnings if any(name.startswith(of) for name in self.places)]
        left = tuple(found)
        self.places = {
            name: file for name, file in self.places.items() if not name.startswith(left)
        }
        return [
            f"{of.rstrip('.')} predicts further tokens: it is left out, as transformers does"
            for of in found
        ]

    def shared(self, model: Architecture) -> None:
        """Forgets the copies of embedding and output that modules of further tokens have."""
        copies = {name for of in COPIES.values() for name in of(model)}
        self.places = {name: file for name, file in self.places.items() if name not in copies}

    def shape(self, name: str) -> torch.Size:
        return torch.Size(self._slice(name).get_shape())

    def kind(self, name: str) -> str:
        return self._slice(name).get_dtype()

    def dtype(self, names: Mapping[str, Any]) -> torch.dtype:
        """The dtype of a tensor made from others."""
        return DTYPES[self.kind(next(iter(names)))] if names else torch.float32

    def output(self) -> bool | None:
        """Whether the output matrix differs from the embedding; None if there is none."""
        ends = [next((n for n in of if n in self.places), "") for of in (OUTPUTS, EMBEDDINGS)]
        if not all(ends):
            return True if ends[0] else None
        (one, other), pieces = ends, [self._slice(name) for name in ends]
        if self.shape(one) != self.shape(other) or self.kind(one) != self.kind(other):
            return True
        return any(
            not torch.equal(*(piece[row : row + ROWS] for piece in pieces))
            for row in range(0, self.shape(one)[0], ROWS)
        )

    def _slice(self, name: str) -> Any:
        return self._open[self.places[name]].get_slice(name)

    def read(self, name: str) -> torch.Tensor:
        """Raises: DataError: the file cannot be read, or the tensor has non-finite values."""
        path = self.folder / self.places[name]
        try:
            tensor = self._open[self.places[name]].get_tensor(name)
        except (SafetensorError, OSError) as problem:
            raise DataError(
                f"the tensor {name} of {path} cannot be read: {problem}", "download the file again"
            ) from None
        if not tensor.isfinite().all():
            raise DataError(
                f"the tensor {name} of {path} has values that are not finite",
                "download the file again, or use other weights",
            )
        return tensor

    def checksums(self) -> dict[str, dict[str, Any]]:
        """File → its size in bytes and SHA-256."""
        found = {}
        for name in (CONFIG, *self._open):
            with (self.folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[name] = {"bytes": file.seek(0, 2), "sha256": digest}
        return found


class _Reading(DefaultSavePlanner):
    """Reads each tensor just before DCP writes it."""

    def __init__(self, model: Architecture, head: str, wanted: Parts, there: _Tensors) -> None:
        super().__init__()
        self._adapter = _adapter(model)
        self._wanted = wanted
        self._there = there
        self._tied = model.tied and head == "tokens"
        self._written: torch.Tensor | None = None

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        stopping.check("reading the weights starts over")
        name = write_item.index.fqn
        # DCP's writer keeps every tensor until the last one is written: free the memory.
        if self._written is not None:
            self._written.untyped_storage().resize_(0)
        shape, theirs = self._wanted[name]
        if not theirs:
            self._written = torch.zeros(shape)
            return self._written
        read = {each: self._there.read(each) for each in theirs}
        if SCORE in read:
            self._written = torch.empty(shape, dtype=self._there.dtype(theirs))
            return self._written.copy_(read[SCORE])
        if self._tied and name == HEAD:
            name = TABLE
        # A copy, since the memory may be mapped from the file.
        self._written = torch.empty(shape, dtype=self._there.dtype(theirs))
        return self._written.copy_(self._adapter.from_hf(read)[name])


def _check(wanted: Parts, there: _Tensors, name: str, model: Architecture, head: str) -> None:
    """Raises: DataError: a tensor is missing, unknown, or of another shape or precision."""
    needed = {name: shape for _, theirs in wanted.values() for name, shape in theirs.items()}
    folder, shown = there.folder, f"the model `{name}`"
    missing = [name for name in needed if name not in there.places]
    if missing:
        raise DataError(
            f"{folder} lacks {_some(missing)}, which {shown} has",
            "a file of the weights is missing, or they belong to another model",
        )
    # Tensors that adapters drop are rebuilt; a tied model's output is the embedding.
    aside = {name for name, ours in _adapter(model).from_hf_map.items() if ours is None}
    more = [
        each
        for each in there.places
        if each not in needed
        and _pattern(each) not in aside
        and not ((model.tied or head == "score") and each in OUTPUTS)
    ]
    if more:
        raise DataError(
            f"{folder} has {_some(more)} in {there.places[more[0]]}, which {shown} does not have",
            "compare config.json with the model's shape in the spec; biases, adapters and other "
            "heads are not supported",
        )
    for each, shape in needed.items():
        where = f"the tensor {each} of {folder / there.places[each]}"
        if there.shape(each) != shape:
            raise DataError(
                f"{where} has the shape {list(there.shape(each))}, but {shown} needs {list(shape)}",
                "write the shape from config.json into the model",
            )
        if there.kind(each) not in DTYPES:
            raise DataError(
                f"{where} is stored as {there.kind(each)}",
                f"supported types are {', '.join(DTYPES)}: use or make a version that is not "
                "quantized",
            )


def _pattern(name: str) -> str:
    return ".".join("{}" if part.isdecimal() else part for part in name.split("."))


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return f"the tensor {names[0]}"
    return f"{counted(len(names), 'tensors')}, including {names[0]}"


def check_config(
    model: Architecture,
    folder: Path,
    name: str,
    *,
    output: bool | None = True,
    head: str = "tokens",
) -> list[str]:
    """Compares `config.json` with a model.

    Args:
        output: whether the files have an output matrix that differs from the embedding; None if
            they have none.
        head: "tokens", or "score" of a reward model, which has no output matrix.

    Returns: where the result differs from `config.json`, as in transformers.
    Raises: DataError: it describes another model, or one that is not supported.
    """
    path = folder / CONFIG
    given = read_json(path)
    found = describe(given, model.family)
    if found.problems:
        raise DataError(
            "; ".join(f"{path} {problem.message}" for problem in found.problems),
            found.problems[0].help,
        )
    if found.family != model.family or found.model is None:
        raise DataError(
            f"{path} has the model_type {given['model_type']}, but `{name}` has the family "
            f"{model.family}",
            f"write `family = {found.family}` in the model",
        )
    if found.head != head:
        what = {"score": "a reward model", "tokens": "a language model"}
        raise DataError(
            f"{path} describes {what[found.head]}, but `{name}` is {what[head]}",
            f"write `head = {found.head}` in the model",
        )
    notes = [f"{CONFIG} has {key}, which etude does not know" for key in found.unknown]
    if head == "tokens":
        notes += _output(path, found.model.tied, model.tied, output)
    aside = {"tied"} if head == "score" or (found.model.tied and output) else set()
    differs = [each for each in differences(found.model, model) if each.attribute not in aside]
    if differs:
        shown = "; ".join(f"{d.key} is {d.theirs} there, and {d.ours} in the spec" for d in differs)
        writing = ", ".join(f"`{each.write}`" for each in differs)
        raise DataError(
            f"{path} describes another model than `{name}`: {shown}", f"write {writing}"
        )
    if lacking := lacks_modules(given, model):
        raise DataError(f"{path} {lacking[0]}", lacking[1])
    if model.context > found.longest:
        raise DataError(
            f"{path} has {found.bound} {found.longest}, but `context` of `{name}` is "
            f"{model.context}",
            f"write `context = {found.longest}` in the model",
        )
    _check_for_transformers(model, path, given, name)
    return notes


def _output(path: Path, said: bool, tied: bool, output: bool | None) -> list[str]:
    """Notes on the output matrix: here transformers follows the files, not the configuration."""
    if said and output:
        if tied:
            raise DataError(
                f"{path} ties embedding and output, but the files have a separate output matrix, "
                f"{OUTPUT}",
                "write `tied = false` in the model: both are kept, as transformers does with "
                "these files",
            )
        return [
            f"{CONFIG} ties embedding and output, but {OUTPUT} is a separate matrix: both are "
            "kept, as transformers does"
        ]
    if not said and output is None:
        raise DataError(
            f"{path} does not tie embedding and output, but the files lack {OUTPUT}: "
            "transformers would initialize it at random",
            "a file of the weights is missing; or, if the model is tied, write "
            '"tie_word_embeddings": true in config.json and `tied = true` in the model',
        )
    return []


def _within(ours: Any, theirs: Any) -> Any:
    """A value of ours; of an object, the keys that theirs has too."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {key: value for key, value in ours.items() if key in theirs}
    return ours


def _check_for_transformers(
    model: Architecture, path: Path, given: dict[str, Any], name: str
) -> None:
    """Checks that transformers accepts the configuration and reads it as etude does."""
    from transformers import AutoConfig

    from ..families import hf_config

    wanted = hf_config(named(model, given["model_type"]))
    try:
        theirs = AutoConfig.for_model(**given).to_dict()
    except Exception as problem:  # transformers passes on whatever its checks raise
        reason = " ".join(str(problem).split())[:300]
        raise DataError(
            f"transformers rejects {path}: {reason}", "download the file again"
        ) from None
    ours = AutoConfig.for_model(**wanted).to_dict()
    kind = FAMILIES[model.family].kinds[given["model_type"]]
    # What a kind does not know, it does not compute with. Null may stand for a number that others
    # imply, such as a GPT-2's `n_inner`: `describe` has put it in, and `differences` compared it.
    implied = {key for key, value in kind.defaults.items() if value is None}
    keys = [key for key in wanted if key in theirs and key not in _ASIDE]
    keys = [key for key in keys if theirs[key] is not None or key not in implied]
    pairs = [(key, theirs[key], _within(ours.get(key), theirs[key])) for key in keys]
    # Without, nothing rotates, or always in one way; `alpha` is read into the base.
    if "rope_parameters" in theirs and "alpha" not in (theirs["rope_parameters"] or {}):
        ropes = [each.get("rope_parameters") or {} for each in (theirs, ours)]
        pairs += [(key, ropes[0].get(key), ropes[1].get(key)) for key in _ROPE]
    differs = [each for each in pairs if not alike(each[1], each[2])]
    if differs:
        shown = "; ".join(f"{key} is {a} there, and {b} in the spec" for key, a, b in differs)
        raise DataError(
            f"{path} describes another model than `{name}`: {shown}",
            "use other weights: the family has no such setting",
        )
