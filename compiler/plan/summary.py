"""A plan's summary for people: its stages with the origin of every value, totals, sources."""

from typing import Literal

from pydantic import Field

from ...spec.schema.recipe import rows as usual
from .value import Value, later


class Provenance(Value):
    """A resolved value, for people, and its origin.

    Equal values are equal whatever their origin: moving a line, or replacing a value with a `let`,
    makes no other plan.
    """

    value: str
    origin: str = Field(
        description="spec, use (a used file), let NAME, variant NAME, --set, size SIZE (the "
        "published one), from FILE (in the folder of the weights), from STAGE, or etude (a default)"
    )
    place: str | None = Field(
        default=None, description="file:line:column, the file relative to the spec's folder"
    )
    cite: str | None = Field(
        default=None, description="where the value was published, as the spec says"
    )
    assumed: str | None = Field(
        default=None, description="why it was assumed; null, as `cite`, where the spec says nothing"
    )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Provenance):
            return NotImplemented
        return self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


class Totals(Value):
    """Sums over the jobs that train, except those that run only after a failed gate. Estimates are
    null if any job's is."""

    tokens: int
    steps: int
    flops: int
    seconds: float | None = None
    expected_seconds: float | None = later(
        None, description="with failures, where a cluster says how often it fails"
    )
    gpu_hours: float | None = None
    energy_kwh: float | None = None
    price: float | None = None


class Sources(Value):
    """How many values of models, clusters and stages the spec gives, and for how many it gives
    sources. Values that name a model, a stage or a machine do not count."""

    values: int
    cited: int
    assumed: int


class StageSummary(Value):
    kind: str
    counts: Literal["dialogs"] | None = later(
        None, description="what its batches count; null: what is usual for its kind"
    )
    goes_on_from: str | None
    tokens: int
    steps: int
    values: dict[str, Provenance]

    @property
    def rows(self) -> str:
        """What its batches count, in the plural."""
        return self.counts or usual(self.kind)


class Count(Value):
    """How much of a source a stage has whose length is in epochs and whose data set declares no
    size."""

    stage: str
    dataset: str
    job: str = Field(description="key of the job that makes the data")
    identity: str = Field(description="digest of what decides the count, in the file of counts")
    unit: Literal["tokens", "rows", "dialogs", "pairs", "ratings", "solutions"] = Field(
        description="tokens of documents, rows of packed dialogs, or what batches count"
    )
    numbers: list[int] = Field(description="of each epoch, if epochs differ; else one")
    exact: bool = Field(description="false: an estimate, with which a run does not begin")
    said: str = Field(description="what the numbers come from, for people")
    seed: int = Field(description="of the stage, by which rows are packed")
    seq_len: int


class SilencedFinding(Value):
    code: str
    message: str
    reason: str


class Tracker(Value):
    """A tracker of experiments; what is null, etude or the tracker chooses."""

    kind: str
    project: str | None = None
    group: str | None = None
    entity: str | None = None
