"""Lowers training stages to jobs, one per segment."""

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ...spec.record import replace
from ..costs.jobs import job_costs
from ..families.architectures import (
    active_parameters,
    attention_flops_per_token,
    flops_per_token,
    further_parameters,
    linear_layers,
    parameters,
)
from ..ids import SegmentId
from ..plan.checkpoints import saving
from ..plan.objectives import scores
from ..plan.plan import (
    Attempt,
    Averaging,
    Cost,
    MixturePiece,
    ReferenceJob,
    Schedule,
    TrainJob,
    Window,
)
from ..program import Scheduled, ScheduledCheckpoint, ScheduledStage, Segment
from ..resolve.scope import original
from ..schedule.clock import nearest
from ..torchtitan.adapters import adapters
from ..torchtitan.configuration import torchtitan
from ..values import BatchPiece, LrPiece, Profile, Spikes
from .evaluations import Watched, watched
from .gates import Gates
from .job_list import Jobs
from .model_jobs import Models
from .policy import Place, Policy, Turn, drawn
from .reading import Split, compared, with_reading
from .teaching import Lesson, taught
from .way import Way


class Training:
    """Adds train jobs, and tracks how far each source has been read."""

    def __init__(
        self, program: Scheduled, jobs: Jobs, models: Models, ways: Mapping[type, Way]
    ) -> None:
        self.program = program
        self.jobs = jobs
        self.models = models
        self.ways = ways
        self.policy = Policy(jobs, models)
        self.gates = Gates(program, jobs, models, self.job)
        self.positions: dict[str, dict[str, int]] = {}
        self.ends: dict[tuple[str, int], tuple[str, dict[str, int]]] = {}

    def goes_on(self, name: str, source: str) -> None:
        """Makes stages after `name` read their data from where `source` ended."""
        self.positions[name] = dict(self.positions.get(source, {}))

    def stage(self, stage: ScheduledStage) -> None:
        """Adds the jobs of a stage that trains, and of its gates."""
        model = self.jobs.result[stage.parent] if stage.parent else None
        before = dict(self.positions.get(stage.parent or "", {}))
        positions = dict(before) if stage.spec.data_kind == "documents" else {}
        gate = stage.spec.gate
        begin = self.gates.start(stage, model) if gate else None
        for number, segment in enumerate(stage.segments):
            model, positions = self._segment(stage, number, segment, model, positions)
            self.ends[stage.name, segment.to_step] = model, before | positions
            last = number == len(stage.segments) - 1
            if gate and (last or stage.segments[number + 1].seq_len != segment.seq_len):
                self.gates.after(stage, number, segment, model, positions, begin)
        assert model
        self.jobs.result[stage.name] = model
        self.positions[stage.name] = before | positions

    def checkpoint(self, stage: ScheduledCheckpoint) -> None:
        """Notes the result of a checkpoint stage: that of the segment that ends there."""
        end = self.ends[stage.of, stage.part.steps]
        self.jobs.result[stage.name], self.positions[stage.name] = end

    def _segment(
        self,
        stage: ScheduledStage,
        number: int,
        segment: Segment,
        model: str | None,
        positions: dict[str, int],
    ) -> tuple[str, dict[str, int]]:
        """Adds the train job of a segment; returns its key and the sources' positions after it."""
        start, stop = segment.from_step, segment.to_step
        batch = [
            BatchPiece(
                from_step=max(b.from_step, start),
                to_step=min(b.to_step, stop),
                sequences=b.sequences,
            )
            for b in stage.batches
            if b.from_step < stop and b.to_step > start
        ]

        def within(pieces: list[LrPiece]) -> list[LrPiece]:
            return [
                replace(p, from_step=max(p.from_step, start), to_step=min(p.to_step, stop))
                for p in pieces
                if p.from_step < stop and p.to_step > start
            ]

        mixture = [
            MixturePiece(
                from_step=max(m.from_step, start), to_step=min(m.to_step, stop), weights=m.weights
            )
            for m in stage.mixture
            if m.from_step < stop and m.to_step > start
        ]
        changing = {name: within(pieces) for name, pieces in stage.changing.items()}
        schedule = Schedule(lr=within(stage.lr), batch=batch, mixture=mixture, **changing)
        turn = self._turn(stage, number, segment, schedule, model, positions)
        key, after = self.job(
            stage,
            segment,
            turn.schedule if turn else schedule,
            model,
            _besides(positions, turn),
            first_token=stage.tokens_before(start),
            carry=stage.carries if number == 0 else True,
            id=str(SegmentId(stage.name, number + 1)),
            number=number,
            extends=None,
            turn=turn,
        )
        return key, {**_besides(after, turn), **(turn.positions if turn else {})}

    def _turn(
        self,
        stage: ScheduledStage,
        number: int,
        segment: Segment,
        schedule: Schedule,
        model: str | None,
        positions: dict[str, int],
    ) -> Turn | None:
        """Adds the jobs in which the stage's model writes what it learns from; None if it does not
        write."""
        way, spec = self._way(stage), stage.spec
        if not way.writes and not getattr(spec, "on_policy", None):
            return None
        assert model
        place = Place(stage, number, segment, schedule, model, self._seed(stage))
        if way.writes:
            return self.policy.turn(place, positions, way.reference(stage))
        return self.policy.student(place, positions.get(stage.name, 0), self._teaching(stage))

    def _teaching(self, stage: ScheduledStage) -> Callable[[str, int, str], str]:
        """Adds the job in which a teacher reads a student's answers: their key, number and id."""
        teacher = self._way(stage).teacher(stage)
        assert teacher
        return lambda answers, count, id: taught(
            self.jobs,
            self.program,
            stage,
            teacher,
            Lesson(stage.name, "rollouts", answers, id, count),
        )

    def job(
        self,
        stage: ScheduledStage,
        segment: Segment,
        schedule: Schedule,
        model: str | None,
        positions: dict[str, int],
        *,
        first_token: int,
        carry: bool,
        id: str,
        number: int,
        extends: Attempt | None,
        turn: Turn | None = None,
    ) -> tuple[str, dict[str, int]]:
        """Adds the train job of a segment; returns its key and the sources' positions after it.

        Args:
            schedule: the part of the stage's schedule that the job covers.
            positions: source → the token from which the job reads it.
            first_token: of the stage, including extensions before the job.
            number: of the segment, from 0.
            extends: the attempt of a gate that this job carries out.
            turn: what it learns from, if its model has written it.
        """
        sequences = sum((p.to_step - p.from_step) * p.sequences for p in schedule.batch)
        tokens = sequences * segment.seq_len
        data = self._windows(stage, segment, schedule, sequences, positions)
        content = {
            **self._aim(stage, segment, model),
            "seed": self._seed(stage),
            "seq_len": segment.seq_len,
            "first_step": segment.from_step,
            "first_token": first_token,
            "sequences": sequences,
            "steps": segment.steps,
            "tokens": tokens,
            "schedule": schedule,
            "data": data,
            "optimizer_state": "carry" if carry and model else "fresh",
            "average": self._averaging(stage),
            "resources": segment.resources,
            "torchtitan": self._told(stage, segment, schedule),
        }
        extra = {
            "id": id,
            "stage": stage.name,
            "segment": number,
            "segments": len(stage.segments),
            "saving": saving(stage.spec),
            "profile": None if extends else _profile(stage, segment),
            "roundings": stage.roundings if number == 0 and not extends else [],
            "cost": _cost(stage, segment, schedule.batch, tokens),
            "extends": extends,
        }
        inputs = ({"model": model} if model else {}) | (turn.inputs if turn else {})
        inputs |= self._inputs(stage, [name for name in data if not turn or name != stage.name])
        more = self._watched(stage, segment)
        key = self.jobs.add(TrainJob, content | more.content, inputs | more.inputs, **extra)
        return key, positions | {name: window.last_token for name, window in data.items()}

    def _windows(
        self,
        stage: ScheduledStage,
        segment: Segment,
        schedule: Schedule,
        sequences: int,
        positions: dict[str, int],
    ) -> dict[str, Window]:
        """What a job of `sequences` sequences reads from each source."""
        windows = {}
        for name, count in drawn(schedule).items():
            begin, tokens = positions.get(name, 0), count * segment.seq_len
            windows[name] = Window(
                first_token=begin,
                last_token=begin + tokens,
                sequences=count,
                epochs=self._epochs(stage, name, count, tokens),
            )
        return windows

    def _told(self, stage: ScheduledStage, segment: Segment, schedule: Schedule) -> dict[str, Any]:
        """torchtitan's configuration of a job."""
        found = torchtitan(stage, segment, segment.steps, self._seed(stage), schedule.lr)
        adapter = stage.spec.adapter
        return found | (adapters(adapter, stage.model) if adapter else {})

    def _averaging(self, stage: ScheduledStage) -> Averaging | None:
        polyak = stage.spec.average
        if stage.spec.ema is not None:
            return Averaging(every=1, from_step=0, decay=stage.spec.ema)
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

    def _inputs(self, stage: ScheduledStage, sources: list[str]) -> dict[str, str]:
        """The data of a job, and what other jobs have computed of them."""
        inputs = {f"data:{name}": self._data(stage, name) for name in sources}
        if stage.tokenizer:
            inputs["tokenizer"] = self.jobs.tokenizer(stage.tokenizer)
        reference = self._way(stage).reference(stage)
        if reference:
            for name in sources:
                inputs[f"reference:{name}"] = self._reference(stage, reference, name)
        if teacher := self._way(stage).teacher(stage):
            for name in sources:
                id, data = f"teacher.{stage.name}.{name}", inputs[f"data:{name}"]
                lesson = Lesson(name, "dialogs", data, id)
                inputs[f"teacher:{name}"] = taught(self.jobs, self.program, stage, teacher, lesson)
        return inputs

    def _watched(self, stage: ScheduledStage, segment: Segment) -> Watched:
        """What a job measures while it trains."""
        way = self._way(stage)
        of = way.reference(stage)
        return watched(
            stage,
            segment,
            self.jobs,
            learns_all=way.learns_all(stage.spec),
            data=lambda name: self._data(stage, name),
            reference=(lambda name: self._reference(stage, of, name, "heldout")) if of else None,
        )

    def _data(self, stage: ScheduledStage, name: str) -> str:
        kind = self.jobs.recipe.datasets[name].kind
        if kind == "documents":
            return self.jobs.documents(name, stage.tokenizer)
        similar = getattr(stage.spec, "similar", None) if kind == "preferences" else None
        return self.jobs.records(
            name,
            stage.tokenizer,
            stage.dialog,
            stage.segments[-1].seq_len,
            None if similar is None else float(similar),
            every_token=self._way(stage).learns_all(stage.spec),
            margins=getattr(stage.spec, "margin", None) not in (None, "none"),
            separator=stage.spec.separator,
        )

    def _way(self, stage: ScheduledStage) -> Way:
        return self.ways[type(stage.spec)]

    def _aim(self, stage: ScheduledStage, segment: Segment, model: str | None) -> dict[str, Any]:
        """The objective, the architecture, how to initialize weights that `model` lacks, and which
        steps are not taken."""
        objective = self._objective(stage)
        draws = model is None or scores(objective)  # at least its head
        return {
            "objective": objective,
            "model": stage.model.knowing(segment.seq_len, segment.rope_theta),
            "drawn": "by name" if draws else None,
            **_spikes(stage),
            "qk_clip": stage.optimizer.qk_clip,
        }

    def _objective(self, stage: ScheduledStage) -> Any:
        """The objective of a stage; its fields have the names of the attributes in the schema."""
        model = self._way(stage).objective()
        known = {**vars(stage.spec), **stage.settings, "counts": stage.spec.counts}
        if "layout" in known:
            known["layout"] = layout(stage)
        names = [n for n in model.model_fields if n != "name" and known.get(n) is not None]
        return model.model_validate({name: known[name] for name in names})

    def _reference(
        self, stage: ScheduledStage, reference: str, source: str, split: Split = "train"
    ) -> str:
        """The job that computes the reference's log-probabilities of a source's responses."""
        spec: Any = stage.spec
        segment = stage.segments[0]
        content = {
            "model": self.models.shape(stage).main,
            "source": source,
            "seq_len": segment.seq_len,
            "mask": spec.mask,
            "split": split,
            "resources": segment.resources,
            "torchtitan": torchtitan(stage, segment, 1, self._seed(stage), stage.lr),
        }
        if spec.data_kind == "ratings":
            content["form"] = "ratings"
        else:
            content["layout"] = layout(stage)
        read = compared(self.jobs.recipe.datasets[source], segment.seq_len, split)
        content = with_reading(content, [read])
        inputs = {"model": self.jobs.result[reference], f"data:{source}": self._data(stage, source)}
        return self.jobs.add(
            ReferenceJob,
            content,
            inputs,
            id=f"reference.{stage.name}.{source}" + (".heldout" if split == "heldout" else ""),
            stage=stage.name,
        )

    def _epochs(self, stage: ScheduledStage, name: str, rows: int, tokens: int) -> float | None:
        if count := stage.counts.get(name):
            read = tokens if count.unit == "tokens" else rows
            return read * len(count.numbers) / sum(count.numbers)
        dataset = self.jobs.recipe.datasets.get(name)
        declared = dataset and dataset.declared(stage.spec.counts)
        return (rows if stage.spec.padded else tokens) / declared if declared else None

    def _seed(self, stage: ScheduledStage) -> int:
        """The recipe's seed; after pre-training, one per stage, which starts on its data."""
        seed = self.jobs.seed
        if stage.spec.data_kind == "documents":
            return seed
        name = original(stage.name)
        return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")


def layout(stage: ScheduledStage) -> str:
    """How rows of preferences are laid out. The result is the same, and the state of linear
    attention cannot go on twice from where a prompt ends: there, each response has its own."""
    return "pairs" if linear_layers(stage.model) else getattr(stage.spec, "layout", "joint")


def _besides(positions: dict[str, int], turn: Turn | None) -> dict[str, int]:
    """The positions in data sets, without those of what a model writes and is asked."""
    return {n: at for n, at in positions.items() if not turn or n not in turn.positions}


def _cost(stage: ScheduledStage, segment: Segment, batch: list[BatchPiece], tokens: int) -> Cost:
    """The cost of a job: exact FLOPs, and estimates if the device is known."""
    per_token = flops_per_token(stage.model)
    return Cost(
        parameters=parameters(stage.model),
        active_parameters=active_parameters(stage.model),
        mtp_parameters=further_parameters(stage.model),
        flops_per_token=per_token,
        attention_flops_per_token=attention_flops_per_token(stage.model, segment.seq_len),
        flops=per_token * tokens,
        **job_costs(stage, segment, batch),
    )


def _spikes(stage: ScheduledStage) -> dict[str, Any]:
    """The stage's policy, of its own or inherited; nothing where all steps are taken."""
    asked = stage.settings["spikes"]
    if asked is None or asked.do == "nothing":
        return {"spikes": None}
    if asked.do != "rollback":
        return {"spikes": Spikes(do=asked.do, above=asked.above)}
    policy = Spikes(do=asked.do, above=asked.above, back=asked.back)
    return {"spikes": policy, "rollbacks": asked.at_most}


def _profile(stage: ScheduledStage, segment: Segment) -> Profile | None:
    """The part of the stage's profile within a segment; None if there is none."""
    asked = stage.spec.profile
    if asked is None:
        return None
    begin = max(asked.steps[0], segment.from_step)
    end = min(asked.steps[-1] + 1, segment.to_step)
    if begin >= end:
        return None
    ranks = "all" if asked.ranks == "all" else "first"
    return Profile(from_step=begin, to_step=end, memory=asked.memory, ranks=ranks)
