"""Differences between two plans: jobs that are kept, rerun, new or gone.

Equal keys mean equal results up to rounding, whatever the jobs are called and wherever they run. A
rerun job has another key because its own content or one of its inputs changed.
"""

from collections.abc import Iterator, Mapping
from math import fsum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ...spec.quantity import counted, plain
from ..values import Profile, Saving
from .checkpoints import in_words, profiled_in_words
from .keys import content, placement
from .plan import Plan, TrainJob

MOST_CHANGES = 6
"""How many changed values of a job are shown."""
What = Literal["kept", "again", "new", "gone"]


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Changed(Value):
    """A changed value: its name, both values for people, and the place of the new one."""

    name: str
    old: str | None
    new: str | None
    place: str | None = None


class JobDifference(Value):
    """The difference of a job.

    Attributes:
        was: its name in the old plan, if different.
        changed: values of its own that differ; for a kept job, only those about where and how it
            runs.
        because: names of its inputs that are rerun.
        done: whether a run folder has its result.
        conditional: whether it runs only after a failed gate.
    """

    job: str
    kind: str
    stage: str | None
    what: What
    was: str | None = None
    changed: list[Changed] = []
    because: list[str] = []
    done: bool | None = None
    conditional: bool = False
    tokens: int = 0
    steps: int = 0
    gpu_hours: float | None = None
    price: float | None = None


class WentBack(Value):
    """A time that a job of a run went back at a spike: what its result has beyond the plan.

    Attributes:
        run: the run folder.
        step: the stage's step with the spike.
        to: the step from which training went on.
    """

    run: str
    job: str
    step: int
    to: int


class Difference(Value):
    """Two plans compared. `tokens` … `price` are those of rerun and new training; `went_back` is
    known of run folders."""

    jobs: list[JobDifference]
    recipe: list[Changed]
    tokens: int
    steps: int
    flops: int
    gpu_hours: float | None
    price: float | None
    went_back: list[WentBack] = []

    def __bool__(self) -> bool:
        """Whether there is a difference."""
        return bool(self.went_back) or any(job.what != "kept" or job.changed for job in self.jobs)

    def count(self, what: What) -> int:
        return sum(job.what == what for job in self.jobs)


def difference(old: Plan, new: Plan, done: Mapping[str, bool] | None = None) -> Difference:
    """The differences of `new` from `old`.

    Args:
        done: names of the new plan's jobs → whether their results are there; None: unknown.
    """
    found = list(_kept_or_made(old, new, done))
    keys, ids = {job.key for job in new.jobs}, {job.id for job in new.jobs}
    found += [
        JobDifference(
            job=job.id,
            kind=job.kind,
            stage=job.stage,
            what="gone",
            tokens=job.tokens,
            steps=job.steps,
        )
        for job in old.jobs
        if job.key not in keys and job.id not in ids
    ]
    made = {each.job for each in found if each.what in ("again", "new")}
    trained = [job for job in new.trained() if job.id in made]
    return Difference(
        jobs=found,
        recipe=_recipe(old, new),
        tokens=sum(job.tokens for job in trained),
        steps=sum(job.steps for job in trained),
        flops=sum(job.cost.flops for job in trained),
        gpu_hours=_sum([job.cost.gpu_hours for job in trained]),
        price=_sum([job.cost.price for job in trained]),
    )


def _kept_or_made(old: Plan, new: Plan, done: Mapping[str, bool] | None) -> Iterator[JobDifference]:
    """The difference of each job of the new plan."""
    before = {job.key: job for job in old.jobs}
    named = {job.id: job for job in old.jobs}
    names = {job.key: job.id for job in new.jobs}
    for job in new.jobs:
        common: dict[str, Any] = {
            "job": job.id,
            "kind": job.kind,
            "stage": job.stage,
            "done": None if done is None else done.get(job.id, False),
            "tokens": job.tokens,
            "steps": job.steps,
            "conditional": job.extends is not None,
        }
        if isinstance(job, TrainJob):
            common |= {"gpu_hours": job.cost.gpu_hours, "price": job.cost.price}
        same, other = before.get(job.key), named.get(job.id)
        if same is not None:
            was = same.id if same.id != job.id else None
            changed = list(_otherwise(new, same, job))
            yield JobDifference(what="kept", was=was, changed=changed, **common)
        elif other is None or other.kind != job.kind:
            yield JobDifference(what="new", **common)
        else:
            changed = _own(old, new, job.stage, other, job)
            told = {each.name for each in changed}
            changed += (c for c in _otherwise(new, other, job) if c.name not in told)
            inputs = (key for role, key in job.inputs.items() if other.inputs.get(role) != key)
            because = list(dict.fromkeys(names[key] for key in inputs))
            yield JobDifference(what="again", changed=changed, because=because, **common)


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fsum(known) if len(known) == len(values) else None


def _own(old: Plan, new: Plan, stage: str | None, before: Any, now: Any) -> list[Changed]:
    """The values of a job that differ: its stage's, as specs name them, or else its fields."""
    was, is_ = (content(job, defaults=True) | {"inputs": None} for job in (before, now))
    fields = list(_fields("", was, is_))
    if not fields:
        return []
    named: list[Changed] = []
    if stage and stage in old.stages and stage in new.stages:
        named = list(_values("", old.stages[stage].values, new.stages[stage].values))
    for group in ("dataset", "tokenizer"):
        name = f"{group}.{getattr(now, 'name', '') or now.id.partition('.')[2]}"
        if now.kind == group:
            named += _values("", old.values.get(name, {}), new.values.get(name, {}))
    return (named or fields)[:MOST_CHANGES]


def _otherwise(new: Plan, before: Any, now: Any) -> Iterator[Changed]:
    """Differences in where and how a job runs, as specs name them."""
    was, is_ = _how(before), _how(now)
    values = new.stages[now.stage].values if now.stage in new.stages else {}
    for each in _fields("", was, is_):
        at = values.get(each.name)
        yield each.model_copy(update={"place": at.place if at else None})


def _how(job: Any) -> dict[str, Any]:
    """Where and how a job runs, without what the mesh already determines in torchtitan's fields."""
    found = placement(job)
    mesh, titan = found.pop("resources", {}), found.pop("torchtitan", {})
    if mesh:
        found |= {"ranks": mesh.pop("world_size"), **mesh}
    if "saving" in found:
        found |= in_words(Saving(**found.pop("saving")))
    if "profile" in found:
        found["profile"] = found["profile"] and profiled_in_words(Profile(**found["profile"]))
    if found.get("evaluation"):
        asked = found["evaluation"]
        names = ", ".join(each["name"] for each in asked["measures"])
        found["evaluation"] = f"{names} every {counted(asked['every'], 'steps')}"
    if "training" in titan:
        found["micro_batch"] = titan["training"].get("local_batch_size")
    if "activation_checkpoint" in titan:
        found["recompute"] = _recomputation(titan["activation_checkpoint"])
    found["attention"] = titan.get("attention", {}).get("backend", "flex")
    found["dispatcher"] = titan.get("dispatcher", {}).get("backend", "all_to_all")
    found["compile"] = titan.get("compile")
    return found


def _recomputation(section: Mapping[str, Any] | None) -> str:
    """What a spec says for torchtitan's section."""
    if section is None:
        return "none"
    share = section.get("memory_budget")
    return section["mode"] if share is None else f"budget {100 * share:.10g}%"


def _values(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Changed]:
    for name in [*new, *(n for n in old if n not in new)]:
        a, b = old.get(name), new.get(name)
        if (a and a.value) != (b and b.value):
            yield Changed(
                name=prefix + name,
                old=a and a.value,
                new=b and b.value,
                place=b.place if b else None,
            )


def _fields(name: str, old: Any, new: Any) -> Iterator[Changed]:
    """The leaves that differ, by dotted names."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            yield from _fields(f"{name}.{key}" if name else key, old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _fields(f"{name}[{number}]", a, b)
    else:
        yield Changed(name=name, old=_shown(old), new=_shown(new))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    # Numbers as elsewhere, but true and false stay words.
    text = plain(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _recipe(old: Plan, new: Plan) -> list[Changed]:
    """Values of the recipe's blocks that differ; those of stages are listed with their jobs."""
    found = []
    for block in [*new.values, *(b for b in old.values if b not in new.values)]:
        found += _values(f"{block}.", old.values.get(block, {}), new.values.get(block, {}))
    return found
