"""What a plan tells people: its stages with the origin of every value, its sums, its sources."""

from pydantic import Field

from .value import Value, later


class Provenance(Value):
    """A resolved value, for people, and where it came from.

    What is the same is equal wherever it came from: a line that moves, or a `let` in its place,
    makes no other plan.
    """

    value: str
    origin: str = Field(
        description="spec, use (a used file), let NAME, variant NAME, --set, size SIZE (the "
        "published one), from STAGE, or etude (a default)"
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
    """Sums over the jobs that train, those aside that only a failed gate runs. Estimates are null
    where a job's is."""

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
    """How many values of models, clusters and stages the spec gives, and of how many it says where
    they are from. Those that say which model, stage or machine is meant do not count."""

    values: int
    cited: int
    assumed: int


class StageSummary(Value):
    kind: str
    goes_on_from: str | None
    tokens: int
    steps: int
    values: dict[str, Provenance]


class SilencedFinding(Value):
    code: str
    message: str
    reason: str
