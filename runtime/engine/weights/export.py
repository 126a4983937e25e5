"""Exports a model in Hugging Face format."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from ....compiler.plan.plan import ExportJob
from ... import stopping
from ...data.dialogs.dialog import renderer
from ...data.tokens.tokenizer import load, special, stops
from ...data.tokens.tokenizer_files import GENERATION
from ...disk import move, write
from ...errors import RunError
from ..checkpoints.storage import HEAD, model_tensors, read_tensor, reading, weights_of, writing
from ..device import prepare_any
from .further import COPIES, MODULE

ROUTER_BIAS = "e_score_correction_bias"
SHARD_BYTES = 5 * 10**9
"""A file that has reached this many bytes gets no further tensor."""


def export(
    job: ExportJob, inputs: Mapping[str, Path], folder: Path, *, root: Path | None = None
) -> None:
    """Writes the model of `inputs["model"]` and the tokenizer of `inputs["tokenizer"]` into
    `folder/result`, as a Hugging Face model folder.

    A reward model (head "score") becomes a sequence classifier with one label, which transformers
    reads from the last token that is not padding.

    Args:
        root: the spec's folder, which contains a dialog's template.

    Raises:
        DataError: the dialog does not fit the tokenizer.
        RunError: the model is missing, damaged, has another head, or is of a family that the engine
            does not support.
        Stopped: the disk cannot take the result.
    """
    result = folder / "result"
    if result.is_dir():
        return
    prepare_any()
    from ..families import hf_config

    score = job.head == "score"
    path = weights_of(inputs["model"])
    context = _context(job, inputs["model"])
    model = job.model.main if score else job.model
    config = hf_config(model, score=score) | {"max_position_embeddings": context}
    partial = folder / "result.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with writing(partial):
        partial.mkdir(parents=True)
        dtype = _write_weights(_tensors(job, path), partial)
        tokenizer = load(inputs["tokenizer"] / "tokenizer.json")
        tokens = _copy_tokenizer(inputs["tokenizer"], tokenizer, partial)
        if score:
            tokens |= _padding(tokenizer, partial)
        if job.dialog is not None:
            tokens |= _set_dialog(job.dialog, tokenizer, partial, root or Path())
        _change_tokenizer(partial, model_max_length=context)
        _write_json(partial / "config.json", {**config, "dtype": dtype, **tokens})
        if not score:
            _write_json(partial / "generation_config.json", {"do_sample": False, **tokens})
        move(partial, result)


def _context(job: ExportJob, model: Path) -> int:
    """The context that the model supports; for a best stage, that of the picked model."""
    verdict = model / "verdict.json"
    if job.contexts is None or not verdict.is_file():
        return job.model.context
    return job.contexts[json.loads(verdict.read_text(encoding="utf-8"))["index"]]


def _tensors(job: ExportJob, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under their Hugging Face names, one in memory at a time."""
    from ..families import model_spec

    score = job.head == "score"
    head = "score" if score else "logits"
    model = job.model.main if score else job.model
    spec = model_spec(model, "cpu", model.context, head, further=True)
    assert spec.state_dict_adapter is not None
    adapter = spec.state_dict_adapter(spec.model, None)
    help = f"remove {path.parent}; the next run rebuilds it"
    with reading(path, help):
        tensors = model_tensors(path)
        if HEAD in tensors and (tensors[HEAD].size[0] == 1) != score:
            belongs = "does not belong" if score else "belongs"
            raise RunError(
                f"the checkpoint {path} {belongs} to a reward model",
                "plan again with this version of etude",
            )
    for name, entry in tensors.items():
        if name.startswith(MODULE) and not model.mtp:
            continue
        stopping.check(f"`{job.id}` starts over")
        with reading(path, help):
            tensor = read_tensor(path, name, entry)
        for theirs, each in adapter.to_hf({name: tensor}).items():
            ours = "score.weight" if score and name == HEAD else theirs
            written = _rounded(ours, each) if job.dtype == "bf16" else each
            yield ours, written
            for copy in COPIES[name](model) if name in COPIES else ():
                yield copy, written.clone()


def _rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in bf16. The offsets added to expert scores keep their precision: they decide which
    experts are chosen, and transformers keeps them too."""
    apart = name.endswith(ROUTER_BIAS) or not tensor.is_floating_point()
    return tensor if apart else tensor.to(torch.bfloat16)


def _write_weights(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path) -> str:
    """Writes safetensors files, with an index if there are several; returns the dtype."""
    files: list[list[str]] = []
    size, dtype = 0, ""
    for shard in _shards(tensors):
        path = folder / str(len(files))
        save_file(shard, path, metadata={"format": "pt"})
        _share(path)
        files.append(list(shard))
        size += sum(tensor.nbytes for tensor in shard.values())
        kinds = (each.dtype for name, each in shard.items() if not name.endswith(ROUTER_BIAS))
        dtype = dtype or str(next(kinds, "")).removeprefix("torch.")
    if len(files) == 1:
        (folder / "0").rename(folder / "model.safetensors")
        return dtype
    places = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
        (folder / str(number)).rename(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    _write_json(folder / "model.safetensors.index.json", index)
    return dtype


def _share(path: Path) -> None:
    """Gives a file the mode of a new one: safetensors creates files that only their owner reads."""
    new = path.with_name(f"{path.name}.new")
    new.touch()
    shutil.copymode(new, path)
    new.unlink()


def _shards(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
        if size >= SHARD_BYTES:
            yield shard
            shard, size = {}, 0
    if shard:
        yield shard


def _copy_tokenizer(source: Path, tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Copies a tokenizer's files and returns its entries in a model's configuration."""
    for file in source.iterdir():
        if file.name != GENERATION:
            shutil.copyfile(file, folder / file.name)
    ids = special(tokenizer)
    begin = {} if ids.bos is None else {"bos_token_id": ids.bos}
    several = list(dict.fromkeys([ids.eos, *stops(tokenizer)]))
    return {**begin, "eos_token_id": several if len(several) > 1 else ids.eos}


def _padding(tokenizer: Tokenizer, folder: Path) -> dict[str, int]:
    """Chooses a padding token that no response ends with and returns its id."""
    ids = {
        token.content: number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.special
    }
    known = special(tokenizer)
    names = [name for name in ids if "pad" in name.lower()]
    # A text may end with the end-of-text token, but never with the beginning-of-text token.
    pad = ids[names[0]] if names else known.eos if known.bos is None else known.bos
    _change_tokenizer(folder, pad_token=tokenizer.id_to_token(pad))
    return {"pad_token_id": pad}


def _set_dialog(
    settings: dict[str, Any], tokenizer: Tokenizer, folder: Path, root: Path
) -> dict[str, Any]:
    """Gives the tokenizer the chat template; returns what ends the generation of a message."""
    made = renderer(settings, tokenizer, root)
    _change_tokenizer(folder, chat_template=made.chat_template)
    # A separate file would take precedence over the template in the configuration.
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if not made.stop:
        return {}
    return {"eos_token_id": list(dict.fromkeys([*made.stop, *stops(tokenizer)]))}


def _change_tokenizer(folder: Path, **values: str | int | None) -> None:
    path = folder / "tokenizer_config.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write_json(path, {**before, **values})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write(path, json.dumps(content, indent=2) + "\n")
