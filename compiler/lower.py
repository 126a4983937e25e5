"""The program to jobs: what runs, with complete torchtitan configurations and content keys."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from ..spec import recipe as r
from ..spec.diagnostics import Report
from ..spec.record import replace
from . import curves
from .architectures import attention_flops_per_token, flops_per_token, parameters
from .clock import nearest
from .measures import gate_measures, stage_measures
from .mixture import Mixture
from .plan import (
    Attempt,
    AverageJob,
    Averaging,
    Cost,
    DatasetJob,
    EvaluateJob,
    ExportJob,
    GateJob,
    LossMeasure,
    MixturePiece,
    Requirement,
    Schedule,
    TokenizerJob,
    TrainJob,
    Window,
    content_key,
)
from .program import AverageStage, EvaluateStage, Program, Segment, TrainStage
from .values import Architecture, BatchPiece, LrPiece, Value

CHECKPOINTS_PER_JOB = 10
"""A job saves its state so many times, where the spec does not say how often."""


def lower(program: Program, report: Report) -> Program:
    """Fills `jobs`, in an order in which they can run, and `outputs`."""
    lowering = _Lowering(program)
    lowering.run()
    return replace(program, jobs=lowering.jobs, outputs=lowering.outputs)


class _Lowering:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.recipe = program.recipe
        self.seed = program.recipe.header.seed
        self.jobs: list[Any] = []
        self.keys: set[str] = set()
        self.outputs: dict[str, str] = {}
        self.data_keys: dict[tuple[str, str | None], str] = {}
        self.tokenizer_keys: dict[str, str] = {}
        self.result: dict[str, str] = {}
        self.exports: dict[str, str] = {}
        self.positions: dict[str, dict[str, int]] = {}

    def run(self) -> None:
        needed: dict[str, None] = {}
        for stage in self.program.stages.values():
            if isinstance(stage, TrainStage):
                self._train(stage)
                needed.pop(stage.parent or "", None)
                needed[stage.name] = None
            elif isinstance(stage, AverageStage):
                self._average(stage)
                for source in stage.of:
                    needed.pop(source, None)
                needed[stage.name] = None
            else:
                self._evaluate(stage)
        for name in needed:
            trained = self.program.trained(name)
            key = self._export(name, self.result[name], trained, None)
            self.outputs[name] = key

    def _add(self, kind: type, content: dict[str, Any], inputs: dict[str, str], **rest: Any) -> str:
        """Adds a job unless an equal one is there; returns its key."""
        dumped = {name: _plain(value) for name, value in content.items()}
        key = content_key(kind.model_fields["kind"].default, dumped, inputs)
        if key not in self.keys:
            self.keys.add(key)
            self.jobs.append(kind(key=key, inputs=inputs, **content, **rest))
        return key

    def _source(self, dataset: r.Dataset) -> dict[str, Any]:
        text = dataset.fields.text
        if dataset.files is not None:
            return {"kind": "files", "files": dataset.files, "text": text}
        if dataset.hub is not None:
            return {"kind": "hub", "repo": dataset.hub, "config": dataset.config,
                    "split": dataset.split, "text": text}  # fmt: skip
        return {"kind": "sample", "sample": dataset.sample, "documents": dataset.documents,
                "seed": self.seed}  # fmt: skip

    def _tokenizer(self, name: str) -> str:
        if name not in self.tokenizer_keys:
            spec = self.recipe.tokenizers[name]
            datasets: dict[str, Any] = {}
            if spec.train:
                settings: dict[str, Any] = {"kind": "train", "vocab": spec.train.vocab}
                datasets = {
                    n: {"source": self._source(self.recipe.datasets[n]),
                        "bad_lines": self.recipe.datasets[n].bad_lines}
                    for n in spec.train.on
                }  # fmt: skip
            elif spec.file:
                settings = {"kind": "file", "file": spec.file}
            elif spec.hub:
                settings = {"kind": "hub", "repo": spec.hub}
            else:
                settings = {"kind": "bytes"}
            self.tokenizer_keys[name] = self._add(
                TokenizerJob, {"tokenizer": settings, "datasets": datasets}, {},
                id=f"tokenizer.{name}", stage=None,
            )  # fmt: skip
        return self.tokenizer_keys[name]

    def _dataset(self, name: str, tokenizer: str | None) -> str:
        place = (name, tokenizer)
        if place not in self.data_keys:
            spec = self.recipe.datasets[name]
            content = {
                "name": name, "source": self._source(spec), "holdout": str(spec.holdout),
                "bad_lines": spec.bad_lines, "seed": self.seed,
            }  # fmt: skip
            inputs = {"tokenizer": self._tokenizer(tokenizer)} if tokenizer else {}
            self.data_keys[place] = self._add(
                DatasetJob,
                content,
                inputs,
                id=f"dataset.{name}" + (f".{tokenizer}" if len(self.recipe.tokenizers) > 1 else ""),
                stage=None,
            )
        return self.data_keys[place]

    def _inputs(self, stage: TrainStage, sources: list[str], model: str | None) -> dict[str, str]:
        inputs = {f"data:{name}": self._dataset(name, stage.tokenizer) for name in sources}
        if stage.tokenizer:
            inputs["tokenizer"] = self._tokenizer(stage.tokenizer)
        if model:
            inputs["model"] = model
        return inputs

    def _train(self, stage: TrainStage) -> None:
        model = self.result[stage.parent] if stage.parent else None
        positions = dict(self.positions.get(stage.parent or "", {}))
        gate = stage.spec.gate
        begin = self._start_measures(stage, model) if gate else None
        for number, segment in enumerate(stage.segments):
            model, positions = self._segment(stage, number, segment, model, positions)
            last = number == len(stage.segments) - 1
            if gate and (last or stage.segments[number + 1].seq_len != segment.seq_len):
                self._gate(stage, number, segment, model, positions, begin)
        assert model
        self.result[stage.name] = model
        self.positions[stage.name] = positions

    def _segment(
        self, stage: TrainStage, number: int, segment: Segment, model: str | None,
        positions: dict[str, int],
    ) -> tuple[str, dict[str, int]]:  # fmt: skip
        """Adds the train job of a segment; returns its key and the sources' positions after it."""
        start, stop = segment.from_step, segment.to_step
        batch = [
            BatchPiece(from_step=max(b.from_step, start), to_step=min(b.to_step, stop),
                       sequences=b.sequences)
            for b in stage.batches if b.from_step < stop and b.to_step > start
        ]  # fmt: skip
        lr = [
            replace(p, from_step=max(p.from_step, start), to_step=min(p.to_step, stop))
            for p in stage.lr if p.from_step < stop and p.to_step > start
        ]  # fmt: skip
        mixture = [
            MixturePiece(from_step=max(m.from_step, start), to_step=min(m.to_step, stop),
                         weights=m.weights)
            for m in stage.mixture if m.from_step < stop and m.to_step > start
        ]  # fmt: skip
        return self._train_job(
            stage, segment, Schedule(lr=lr, batch=batch, mixture=mixture), model, positions,
            carry=stage.carries if number == 0 else True, id=f"{stage.name}.{number + 1}",
            number=number, extends=None,
        )  # fmt: skip

    def _train_job(
        self, stage: TrainStage, segment: Segment, schedule: Schedule, model: str | None,
        positions: dict[str, int], *, carry: bool, id: str, number: int, extends: Attempt | None,
    ) -> tuple[str, dict[str, int]]:  # fmt: skip
        first_step, steps = segment.from_step, segment.to_step - segment.from_step
        counts = [(p.to_step - p.from_step) * p.sequences for p in schedule.batch]
        sequences = sum(counts)
        first_token = stage.tokens_before(first_step)
        drawn = Mixture(
            [(m.weights, _sequences(schedule.batch, m)) for m in schedule.mixture]
        ).counts(sequences)
        data: dict[str, Window] = {}
        after = dict(positions)
        for name, count in drawn.items():
            begin = positions.get(name, 0)
            after[name] = begin + count * segment.seq_len
            declared = self.recipe.datasets[name].tokens
            data[name] = Window(
                first_token=begin, last_token=after[name], sequences=count,
                epochs=(after[name] - begin) / declared if declared else None,
            )  # fmt: skip
        architecture = replace(stage.model, context=segment.seq_len, rope_theta=segment.rope_theta)
        tokens = sequences * segment.seq_len
        per_token = flops_per_token(stage.model)
        average = self._averaging(stage)
        content = {
            "model": architecture,
            "seed": self.seed,
            "seq_len": segment.seq_len,
            "first_step": first_step,
            "first_token": first_token,
            "sequences": sequences,
            "steps": steps,
            "tokens": tokens,
            "schedule": schedule,
            "data": data,
            "optimizer_state": "carry" if carry and model else "fresh",
            "average": average,
            "resources": segment.resources,
            "torchtitan": torchtitan(stage, segment, steps, self.seed, schedule.lr),
        }
        every = stage.spec.checkpoint
        extra = {
            "id": id,
            "stage": stage.name,
            "segment": number,
            "segments": len(stage.segments),
            "checkpoint_every": every if every
            else max(-(-steps // CHECKPOINTS_PER_JOB), 1),
            "roundings": stage.roundings if number == 0 and not extends else [],
            "cost": Cost(
                parameters=parameters(stage.model),
                flops_per_token=per_token,
                attention_flops_per_token=attention_flops_per_token(stage.model, segment.seq_len),
                flops=per_token * tokens,
            ),
            "extends": extends,
        }  # fmt: skip
        key = self._add(TrainJob, content, self._inputs(stage, list(data), model), **extra)
        return key, after

    def _averaging(self, stage: TrainStage) -> Averaging | None:
        polyak = stage.spec.average
        if polyak is None:
            return None
        steps = Fraction(stage.steps)
        if polyak.over and polyak.over.unit == "steps":
            steps = polyak.over.value
        elif polyak.over and polyak.over.unit == "%":
            steps = stage.steps * polyak.over.value
        elif polyak.over:
            steps = polyak.over.value / Fraction(stage.tokens, stage.steps)
        return Averaging(every=polyak.every, from_step=max(stage.steps - nearest(steps), 0))

    def _start_measures(self, stage: TrainStage, model: str | None) -> str | None:
        """The evaluation of the stage's starting weights, where a gate compares with it."""
        assert stage.spec.gate
        if model is None or not any(q.of_start for q in stage.spec.gate.requirements):
            return None
        measures = gate_measures(stage, stage.segments[0], self._short(stage), of_start=True)
        parent = self.program.trained(stage.parent or "")
        export = self._export(stage.parent or "", model, parent, None)
        return self._evaluation(f"{stage.name}.start", stage, measures, export, stage.name)

    def _short(self, stage: TrainStage) -> int:
        if stage.parent:
            return self.program.trained(stage.parent).segments[-1].seq_len
        return stage.segments[0].seq_len

    def _gate(
        self, stage: TrainStage, number: int, segment: Segment, key: str,
        positions: dict[str, int], begin: str | None,
    ) -> None:  # fmt: skip
        gate = stage.spec.gate
        assert gate
        guarded = key
        attempt_key, where = key, positions
        steps = self._extension_steps(stage, segment, gate)
        for attempt in range(gate.attempts + 1):
            name = f"{stage.name}.{number + 1}"
            extends = None
            if attempt:
                extends = Attempt(gate=guarded, number=attempt)
                attempt_key, where = self._train_job(
                    stage, replace(segment, from_step=segment.to_step,
                                   to_step=segment.to_step + steps),
                    self._extension_schedule(stage, segment, steps), attempt_key, where,
                    carry=True, id=f"{name}+{attempt}", number=number, extends=extends,
                )  # fmt: skip
            measures = gate_measures(stage, segment, self._short(stage), of_start=False)
            export = self._export(f"{name}+{attempt}" if attempt else name, attempt_key, stage,
                                  extends)  # fmt: skip
            inputs = self._evaluation_inputs(measures, stage, export)
            if begin:
                inputs["start"] = begin
            content = {
                "attempt": attempt,
                "attempts": gate.attempts,
                "measures": measures,
                "requirements": [
                    Requirement(
                        measure=q.measure + (f"({q.argument})" if q.argument else ""),
                        op=q.op, value=float(q.value), of_start=q.of_start,
                    )
                    for q in gate.requirements
                ],
            }  # fmt: skip
            self._add(
                GateJob, content, inputs, id=f"gate.{name}" + (f"+{attempt}" if attempt else ""),
                stage=stage.name, segment=guarded, extends=extends,
                what=f"seq_len {segment.seq_len} of {stage.name}",
            )  # fmt: skip

    def _extension_steps(self, stage: TrainStage, segment: Segment, gate: r.Gate) -> int:
        if gate.extend is None:
            return 0
        if gate.extend.unit == "steps":
            return max(nearest(gate.extend.value), 1)
        batch = _batch_at(stage.batches, segment.to_step - 1)
        return max(nearest(gate.extend.value / (batch * segment.seq_len)), 1)

    def _extension_schedule(self, stage: TrainStage, segment: Segment, steps: int) -> Schedule:
        """What is in force where the segment ends, held."""
        start, stop = segment.to_step, segment.to_step + steps
        piece = next(p for p in reversed(stage.lr) if p.from_step < start)
        position = start if piece.clock == "steps" else stage.tokens_before(start)
        rate = curves.value(
            piece.shape, piece.start, piece.end, (position - piece.origin) / piece.length
        )
        weights = next(m.weights for m in reversed(stage.mixture) if m.from_step < start)
        return Schedule(
            lr=[LrPiece(from_step=start, to_step=stop, shape="hold", start=rate, end=rate,
                        clock="steps", origin=start, length=1)],
            batch=[BatchPiece(from_step=start, to_step=stop,
                              sequences=_batch_at(stage.batches, start - 1))],
            mixture=[MixturePiece(from_step=start, to_step=stop, weights=weights)],
        )  # fmt: skip

    def _export(self, name: str, model: str, stage: TrainStage, extends: Attempt | None) -> str:
        if model not in self.exports:
            segment = stage.segments[-1]
            trained = next((j for j in self.jobs if j.key == model), None)
            shape: Architecture = (
                trained.model
                if isinstance(trained, TrainJob)
                else replace(stage.model, context=segment.seq_len, rope_theta=segment.rope_theta)
            )
            inputs = {"model": model}
            if stage.tokenizer:
                inputs["tokenizer"] = self._tokenizer(stage.tokenizer)
            self.exports[model] = self._add(
                ExportJob, {"model": shape}, inputs, id=f"export.{name}",
                stage=name.split(".")[0], extends=extends,
            )  # fmt: skip
        return self.exports[model]

    def _average(self, stage: AverageStage) -> None:
        trained = self.program.trained(stage.name)
        segment = trained.segments[-1]
        shape = replace(stage.model, context=segment.seq_len, rope_theta=segment.rope_theta)
        inputs = {f"of.{i}": self.result[name] for i, name in enumerate(stage.of)}
        content = {"model": shape, "weights": [str(w) for w in stage.weights]}
        self.result[stage.name] = self._add(
            AverageJob, content, inputs, id=stage.name, stage=stage.name
        )
        self.positions[stage.name] = dict(self.positions.get(stage.of[0], {}))

    def _evaluation_inputs(
        self, measures: list[Any], stage: TrainStage, export: str
    ) -> dict[str, str]:
        inputs = {"model": export}
        for measure in measures:
            if isinstance(measure, LossMeasure):
                for name in measure.data:
                    inputs[f"data:{name}"] = self._dataset(name, stage.tokenizer)
        return inputs

    def _evaluation(
        self, id: str, stage: TrainStage, measures: list[Any], export: str, name: str
    ) -> str:
        inputs = self._evaluation_inputs(measures, stage, export)
        return self._add(EvaluateJob, {"measures": measures}, inputs, id=id, stage=name)

    def _evaluate(self, stage: EvaluateStage) -> None:
        trained = self.program.trained(stage.name)
        export = self._export(stage.of, self.result[stage.of], trained, None)
        measures = stage_measures(stage, trained)
        key = self._evaluation(stage.name, trained, measures, export, stage.name)
        self.outputs[stage.name] = key


def torchtitan(
    stage: TrainStage, segment: Segment, steps: int, seed: int, lr: list[LrPiece]
) -> dict[str, Any]:
    """The torchtitan configuration of a segment: sections and fields as torchtitan names them."""
    on_cpu = segment.resources.device == "cpu"
    resources = segment.resources
    peak = max(max(piece.start, piece.end) for piece in lr)
    optimizer = stage.optimizer
    recompute = {"none": None, "selective": {"mode": "selective"}, "full": {"mode": "full"}}
    return {
        "training": {
            "local_batch_size": segment.micro_batch,
            "seq_len": segment.seq_len,
            "max_norm": stage.clip,
            "steps": steps,
            "dtype": "float32",
            "mixed_precision_param": "bfloat16" if stage.precision == "bf16" else "float32",
            "disable_cuda_graphs": True,
        },
        "parallelism": {
            "data_parallel_replicate_degree": resources.replicate,
            "data_parallel_shard_degree": resources.shard,
            "tensor_parallel_degree": resources.tensor,
            "context_parallel_degree": resources.context,
            "pipeline_parallel_degree": resources.pipeline,
        },
        "optimizer": {
            "implementation": "foreach" if on_cpu else "fused",
            "param_groups": [
                {
                    "pattern": ".*",
                    "optimizer_name": {"adamw": "AdamW", "adam": "Adam"}[optimizer.kind],
                    "optimizer_kwargs": {
                        "lr": peak,
                        "betas": list(optimizer.betas),
                        "eps": optimizer.eps,
                        "weight_decay": optimizer.weight_decay,
                    },
                }
            ],
        },
        "activation_checkpoint": recompute[stage.recompute],
        "compile": {"enable": not on_cpu},
        "debug": {"seed": seed, "deterministic": True},
        "comm": {"init_timeout_seconds": 1800, "train_timeout_seconds": 1800},
    }


def _sequences(batch: list[BatchPiece], piece: MixturePiece) -> int:
    """Sequences that a piece of a mixture covers."""
    return sum(
        (min(b.to_step, piece.to_step) - max(b.from_step, piece.from_step)) * b.sequences
        for b in batch
        if b.from_step < piece.to_step and b.to_step > piece.from_step
    )


def _batch_at(batches: list[BatchPiece], step: int) -> int:
    return next(b.sequences for b in reversed(batches) if b.from_step <= step)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Value):
        return dict(vars(value))
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
