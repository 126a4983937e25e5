"""The jobs of a plan under construction, and those that prepare data."""

from collections import Counter
from typing import Any

from ...spec.schema import recipe as r
from ..plan.contexts import context_of
from ..plan.keys import content_key
from ..plan.plan import (
    DatasetJob,
    FilterJob,
    FilterRule,
    TokenizerJob,
)
from ..plan.verifiers import Verifier
from ..program import Scheduled
from ..record_fields import fields_of


class Jobs:
    """Jobs, each once, in an order in which they can run.

    Attributes:
        by_key: key → job.
        named: uses of each data set name.
        result: stage → key of the job that makes its result, for stages lowered so far.
        scores: (score stage, dataset) → key of the job that scores it.
        contexts: key of a job that makes a model → the longest sequence that the model knows.
    """

    def __init__(self, program: Scheduled) -> None:
        self.program = program
        self.recipe = program.recipe
        self.seed = program.recipe.header.seed
        self.jobs: list[Any] = []
        self.by_key: dict[str, Any] = {}
        self.named: Counter[str] = Counter()
        self.result: dict[str, str] = {}
        self.scores: dict[tuple[str, str], str] = {}
        self.contexts: dict[str, int] = {}
        self.dialogs = _dialogs(program)

    def add(self, kind: type, content: dict[str, Any], inputs: dict[str, str], **rest: Any) -> str:
        """Adds a job unless one with the same result exists; returns its key."""
        job = kind(key="", inputs=inputs, **content, **rest)
        key = content_key(job)
        if key not in self.by_key:
            self.by_key[key] = job.model_copy(update={"key": key})
            self.jobs.append(self.by_key[key])
            context = context_of(job, self.contexts)
            if context is not None:
                self.contexts[key] = context
        return key

    def tokenizer(self, name: str) -> str:
        """The key of a tokenizer's job."""
        spec = self.recipe.tokenizers[name]
        datasets: dict[str, Any] = {}
        if spec.train:
            settings: dict[str, Any] = {"kind": "train", "vocab": spec.train.vocab}
            datasets = {
                n: {
                    "source": self._source(self.recipe.datasets[n]),
                    "bad_lines": self.recipe.datasets[n].bad_lines,
                }
                for n in spec.train.on
            }
        elif spec.file:
            settings = {"kind": "file", "file": spec.file}
        elif spec.hub:
            settings = {"kind": "hub", "repo": spec.hub}
        else:
            settings = {"kind": "bytes"}
        if self.dialogs:
            settings["dialogs"] = self.dialogs
        own = settings["kind"] in ("train", "bytes")
        if own and (special := _special(self.recipe)):
            settings["special"] = special
        return self.add(
            TokenizerJob,
            {"tokenizer": settings, "datasets": datasets},
            {},
            id=f"tokenizer.{name}",
            stage=None,
        )

    def documents(self, name: str, tokenizer: str | None, *, filtered: bool = True) -> str:
        """The key of the job that makes a dataset's documents, filtered by default."""
        spec = self.recipe.datasets[name]
        key = self._dataset(name, tokenizer, {})
        rules = [each for each in spec.filters if not each.file]
        if not rules or not filtered:
            return key
        inputs = {"data": key}
        for each in rules:
            inputs[f"scores:{each.what}"] = self.scores[each.what, name]
        content = {
            "name": name,
            "rules": [
                FilterRule.model_validate(
                    {
                        "scores": f"scores:{each.what}",
                        "op": each.op,
                        "value": float(each.value),
                        "keep": str(each.keep),
                    }
                )
                for each in rules
            ],
            "seed": self.seed,
        }
        return self.add(FilterJob, content, inputs, id=f"filter.{name}", stage=None)

    def records(
        self,
        name: str,
        tokenizer: str | None,
        dialog: dict[str, Any] | None,
        longest: int | None,
        similar: float | None = None,
        *,
        every_token: bool = False,
        answers: dict[str, Verifier] | None = None,
        margins: bool = False,
        separator: str | None = None,
    ) -> str:
        """The key of the job that makes a dataset's dialogs, preferences or prompts.

        Args:
            longest: tokens of the longest record that its reader takes.
            similar: pairs of responses more similar than this are dropped.
            every_token: whether dialogs are learned whole.
            answers: verifiers that compare with the answer of each prompt.
            margins: whether the margins of preferences are read.
            separator: what stands between the steps of solutions.
        """
        spec = self.recipe.datasets[name]
        more: dict[str, Any] = {"form": spec.kind, "dialog": dialog, "longest": longest}
        more["drop_similar"] = similar
        # Nobody can shorten records that stages draw, unlike those in files.
        long = "drop" if spec.stages else spec.long
        more |= {
            "long": long,
            "every_token": every_token,
            "answers": answers or {},
            "margins": margins,
            "separator": separator,
        }
        return self._dataset(name, tokenizer, more)

    def _dataset(self, name: str, tokenizer: str | None, more: dict[str, Any]) -> str:
        spec = self.recipe.datasets[name]
        content = {
            "name": name,
            "source": self._source(spec),
            "holdout": str(spec.holdout),
            "bad_lines": spec.bad_lines,
            "seed": self.seed,
            "awaited": spec.awaited,
            "fim": spec.fim and spec.fim.settings(),
            **more,
        }
        inputs = {"tokenizer": self.tokenizer(tokenizer)} if tokenizer else {}
        for number, stage in enumerate(spec.stages):
            inputs[f"from.{number}"] = self.result[stage]
        if spec.awaited and spec.candidates:
            inputs["candidates"] = self.result[spec.candidates]
        id = f"dataset.{name}" + (f".{tokenizer}" if len(self.recipe.tokenizers) > 1 else "")
        made = DatasetJob.model_validate(
            {"key": "", "id": id, "stage": None, "inputs": inputs} | content
        )
        if content_key(made) not in self.by_key:
            self.named[id] += 1
            id += f"#{self.named[id]}" if self.named[id] > 1 else ""
        return self.add(DatasetJob, content, inputs, id=id, stage=None)

    def _source(self, dataset: r.Dataset) -> dict[str, Any]:
        source: dict[str, Any]
        if dataset.stages:
            return {"kind": "job", "file": dataset.output}
        if dataset.files is not None:
            source = {"kind": "files", "files": dataset.files}
        elif dataset.tokenized is not None:
            source = {"kind": "tokens", "tokens": dataset.tokenized}
            if dataset.layout:
                source["layout"] = dataset.layout
        elif dataset.hub is not None:
            source = {
                "kind": "hub",
                "repo": dataset.hub,
                "config": dataset.config,
                "split": dataset.split,
            }
        else:
            source = {"kind": "sample", "sample": dataset.sample, "seed": self.seed}
        if dataset.kind != "documents":
            source["fields"] = fields_of(dataset.fields)
        elif dataset.sample is None and dataset.tokenized is None:
            source["text"] = dataset.fields.text
        sites = [
            {"field": each.what, "file": each.file, "keep": bool(each.keep)}
            for each in dataset.filters
            if each.file
        ]
        if sites:
            source["sites"] = sites
        if dataset.documents is not None:
            source["documents"] = dataset.documents
        if dataset.skip:
            source["skip"] = dataset.skip
        if dataset.deal:
            source["deal"] = list(dataset.deal)
        return source


def _special(recipe: r.Recipe) -> list[str]:
    """The tokens between the parts of documents: tokenizers made in the plan have them."""
    named = (name for each in recipe.datasets.values() if each.fim for name in each.fim.tokens)
    return list(dict.fromkeys(named))


def _dialogs(program: Scheduled) -> list[dict[str, Any]]:
    """The protocols that stages use: tokenizers trained in the plan have their special tokens."""
    found: list[dict[str, Any]] = []
    for stage in program.stages.values():
        dialog = stage.shown_dialog
        if dialog and dialog not in found:
            found.append(dialog)
    return found
