"""The plan: what will run, as a graph of jobs. A plain value that survives JSON.

The models below are the plan's published JSON Schema (`etude schema plan`). Tokens, steps and
sequences are exact integers; a step is one optimizer update, counted from 0 at the start of its
stage; every range is half open.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from ...spec.schema.recipe import rows
from ..values import (
    Architecture,
    Claim,
    Generation,
    Phase,
    Profile,
    Reading,
    Resources,
    Rounding,
    Saving,
    Scaled,
    Spikes,
)
from .cost import Cost as Cost
from .evaluations import Choice, Evaluation
from .keys import (
    DERIVED,
    INPUTS,
    LIMIT,
    NAME,
    OBSERVED,
    PLACED,
    PLACEMENT,
    PROFILED,
    SAVING,
    UNTRAINED,
)
from .measures import AccuracyMeasure, HeldOut, Measure, Requirement
from .objectives import Distill as Distill
from .objectives import Dpo as Dpo
from .objectives import Grpo as Grpo
from .objectives import Kto as Kto
from .objectives import NextToken as NextToken
from .objectives import Objective as Objective
from .objectives import Prm as Prm
from .objectives import Reward as Reward
from .objectives import Sft as Sft
from .pieces import Attempt as Attempt
from .pieces import Averaging as Averaging
from .pieces import FilterRule as FilterRule
from .pieces import MixturePiece as MixturePiece
from .pieces import Part as Part
from .pieces import PromptWindow as PromptWindow
from .pieces import Schedule as Schedule
from .pieces import StepScores as StepScores
from .pieces import Until as Until
from .pieces import Window as Window
from .summary import Count, SilencedFinding, StageSummary, Totals, Tracker
from .summary import Provenance as Provenance
from .summary import Sources as Sources
from .value import Value, later
from .verifiers import Verifier

VERSION = 1
"""The version of the plan's format; a plan of another version is rejected, never misread."""


class Job(Value):
    key: Annotated[str, DERIVED] = Field(
        description="SHA-256 of all that can change the result by more than rounding, inputs' keys "
        "included"
    )
    id: Annotated[str, NAME]
    stage: Annotated[str | None, NAME]
    inputs: Annotated[dict[str, str], INPUTS] = Field(
        description="role → key of the job that provides it"
    )
    steps: int = 0
    tokens: int = 0
    extends: Annotated[Attempt | None, DERIVED] = None


class TokenizerJob(Job):
    kind: Literal["tokenizer"] = "tokenizer"
    tokenizer: dict[str, Any]
    datasets: dict[str, dict[str, Any]] = Field(description="sources that it is trained on")


class DatasetJob(Job):
    kind: Literal["dataset"] = "dataset"
    name: str
    source: dict[str, Any]
    form: Literal["documents", "dialogs", "preferences", "ratings", "solutions", "prompts"] = (
        "documents"
    )
    dialog: dict[str, Any] | None = Field(default=None, description="protocol of the dialogs")
    longest: int | None = Field(default=None, description="tokens of the longest record allowed")
    long: Literal["refuse", "drop", "truncate"] = Field(
        default="refuse", description="what becomes of longer ones"
    )
    every_token: bool = Field(default=False, description="dialogs are learned whole")
    answers: dict[str, Verifier] = later(
        {}, description="verifiers that compare with each prompt's answer, so that it needs one"
    )
    margins: bool = later(False, description="preferences say by how much the better is better")
    separator: str | None = later(None, description="between the steps of solutions")
    drop_similar: float | None = Field(
        default=None, description="responses more alike than this share are dropped"
    )
    awaited: bool = Field(default=False, description="waits for files not there yet")
    fim: dict[str, str] | None = later(None, description="documents with their middle last")
    holdout: str
    bad_lines: int
    seed: int


class FilterJob(Job):
    """Keeps or drops documents by their scores; the rules apply in order."""

    kind: Literal["filter"] = "filter"
    name: str
    rules: list[FilterRule]
    seed: int


class TrainJob(Job):
    kind: Literal["train"] = "train"
    objective: Objective = NextToken()
    model: Architecture
    drawn: Literal["by name"] | None = later(
        None,
        description="how weights that no input has are drawn from the seed: each parameter by its "
        "name and shape; null: there are none",
    )
    seed: int
    seq_len: int
    first_step: int
    first_token: int = Field(description="tokens of the stage before the job")
    segment: Annotated[int, DERIVED]
    segments: Annotated[int, DERIVED]
    sequences: int
    schedule: Schedule
    data: dict[str, Window]
    optimizer_state: Literal["carry", "fresh"]
    average: Averaging | None
    spikes: Spikes | None = later(
        None, description="what happens to a step with a spike of the gradient; null: nothing"
    )
    rollbacks: Annotated[int, LIMIT] = later(0, description="at spikes, before the run stops")
    qk_clip: float | None = later(None, description="largest attention score; null: any")
    saving: Annotated[Saving, SAVING]
    profile: Annotated[Profile | None, PROFILED] = later(
        None, description="steps that torchtitan's profiler records; null: none"
    )
    evaluation: Annotated[Evaluation | None, OBSERVED] = later(
        None, description="losses that are measured during training; null: none"
    )
    choice: Choice | None = later(
        None, description="what one of these losses decides about the job; null: nothing"
    )
    roundings: Annotated[list[Rounding], DERIVED]
    resources: Annotated[Resources, PLACEMENT]
    cost: Annotated[Cost, DERIVED]
    torchtitan: Annotated[dict[str, Any], PLACED] = Field(
        description="sections and fields as torchtitan names them"
    )

    @property
    def rows(self) -> str:
        """What its batches count, in the plural."""
        return getattr(self.objective, "counts", None) or rows(self.objective.name)

    @property
    def reads_rollouts(self) -> bool:
        """Whether it reads answers that its stage's model has written, under the stage's name."""
        return self.stage in self.data

    @property
    def may_end_early(self) -> bool:
        """Whether its steps and tokens are upper bounds."""
        return self.choice is not None and self.choice.patience is not None


class WeightsJob(Job):
    """Published weights (safetensors in the Hugging Face format) to continue from."""

    kind: Literal["weights"] = "weights"
    model: Architecture = Field(description="what config.json has to say, and the tensors to be")
    source: dict[str, str] = Field(
        description="`folder`, relative to the spec's folder; or `hub`, a repository, `revision`"
    )
    head: Literal["tokens", "score"] = later("tokens", description="`score`: of one output")


class AverageJob(Job):
    kind: Literal["average"] = "average"
    model: Architecture
    weights: list[str] = Field(description='share of each input "of.0", "of.1", …, as fractions')


class ForwardJob(Job):
    """Evaluates a model on data, without training."""

    model: Architecture
    seq_len: int
    resources: Annotated[Resources, PLACEMENT]
    torchtitan: Annotated[dict[str, Any], UNTRAINED]
    reading: Annotated[Reading | None, DERIVED] = later(
        None, description="null: on a CPU, or on a GPU that is not known"
    )

    @property
    def scores(self) -> bool:
        """Whether its model gives scores, and not losses of tokens."""
        return False


class ReferenceJob(ForwardJob):
    """Log-probabilities of the responses in preference data; of rated answers, those of the answer
    and of another prompt's."""

    kind: Literal["reference"] = "reference"
    source: str
    form: Literal["preferences", "ratings"] = later("preferences")
    mask: Literal["none", "formatting"]
    layout: Literal["joint", "pairs"] = "joint"
    split: Literal["train", "heldout"] = later("train", description="which of the preferences")


class TeacherJob(ForwardJob):
    """Probabilities of the tokens that a teacher finds likeliest, at each learned place."""

    kind: Literal["teacher"] = "teacher"
    source: str
    form: Literal["dialogs", "rollouts"] = later(
        "dialogs", description="dialogs, or answers that the student has written"
    )
    temperature: float
    top_k: int
    vocab: int
    every_token: bool


class LikelihoodJob(ForwardJob):
    """Log-probabilities of every token of answers, under the policy that wrote them or under a
    reference."""

    kind: Literal["likelihood"] = "likelihood"
    source: str
    temperature: float = later(1.0, description="divides the logits")


class ScoreJob(ForwardJob):
    """Mean cross-entropy of every document."""

    kind: Literal["score"] = "score"
    source: str


class HeldOutJob(ForwardJob):
    """Losses of a model on held-out documents and dialogs, or the accuracy of a reward model."""

    kind: Literal["heldout"] = "heldout"
    measures: list[HeldOut]

    @property
    def scores(self) -> bool:
        return isinstance(self.measures[0], AccuracyMeasure)


class ExportJob(Job):
    kind: Literal["export"] = "export"
    model: Architecture
    head: Literal["tokens", "score"] = "tokens"
    dtype: Literal["bf16"] | None = Field(
        default=None, description="what weights are rounded to; null: they stay as they are"
    )
    dialog: dict[str, Any] | None = Field(default=None, description="exported as chat template")
    contexts: list[int] | None = Field(
        default=None,
        description="of a best stage whose models know different ones: the context of each",
    )


class WritingJob(Job):
    """A job whose model may have to generate, on GPUs of its own. Its input `scores` (for several
    models `scores.0` and so on) holds the results of a `heldout` job; `draws` and `judged` hold
    answers and a judge's scores for them."""

    resources: Annotated[Resources | None, PLACEMENT] = later(
        None, description="null: one process does it"
    )
    generation: Annotated[Generation | None, DERIVED] = later(
        None, description="null: on a CPU, on a GPU that is not known, or where nothing is written"
    )


class DrawJob(WritingJob):
    """Answers to prompts.

    With `until`, a window begins where that of the input "before", an earlier job of the stage,
    has ended.
    """

    kind: Literal["draw"] = "draw"
    dialog: dict[str, Any]
    prompts: str = Field(description="source of the prompts")
    limit: int | None = Field(description="at most so many prompts; null: all")
    draws: int = Field(description="answers to each prompt")
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    window: PromptWindow | None = later(
        None,
        description="prompts of the shuffled set, and the answers' tokens kept; null: all, "
        "in the order of the set",
    )
    until: Until | None = later(
        None, description="prompts whose answers have the same score are replaced"
    )


class JudgeJob(ForwardJob):
    """A reward model's scores for answers."""

    kind: Literal["judge"] = "judge"
    dialog: dict[str, Any]
    by_step: StepScores | None = later(None, description="null: an answer has a score as a whole")

    @property
    def scores(self) -> bool:
        return True


class EnsembleJob(Job):
    """The scores of several reward models for answers, as one."""

    kind: Literal["ensemble"] = "ensemble"
    combine: Literal["mean", "minimum", "minus_std", "minus_variance"] = Field(
        description='of the inputs "of.0", "of.1", …'
    )
    penalty: float = Field(description="factor of what is subtracted from the mean")
    judge: Annotated[str, NAME] = Field(description="the stage, for people")


class SampleJob(Job):
    """Rejection sampling: the draws for every prompt, only the right ones if there are verifiers,
    only the best if there is a judge, and pairs of the best and the worst."""

    kind: Literal["sample"] = "sample"
    prompts: str = Field(description="source of the prompts")
    draws: int
    max_tokens: int
    keep: int = Field(description="best draws of a prompt that become dialogs; 0: all")
    verify: dict[str, Verifier] = later(
        {}, description="a draw that any of them scores below 1 is wrong, and is not kept"
    )


class RolloutJob(Job):
    """Drawn answers with their rewards, if any, and advantages in the groups of their prompts."""

    kind: Literal["rollout"] = "rollout"
    dialog: dict[str, Any]
    group: int
    rewards: dict[str, float] = Field(description="verifier or reward stage → weight")
    verify: dict[str, Verifier] = Field(description="the verifiers among the rewards")
    baseline: Literal["mean", "others"] = Field(
        description="what is subtracted from a reward: the mean of its group, or of its others"
    )
    scale: Literal["group", "batch", "none"] = Field(
        description="whose standard deviation divides the difference"
    )
    prompts: list[int] = Field(description="how many each step learns from")
    sources: list[MixturePiece] = Field(description="how the sources' prompts take turns, in steps")
    mask_truncated: bool = later(
        False, description="answers that max_tokens cuts off are not learned from"
    )


class BestJob(WritingJob):
    """Picks one of the models "of.0", "of.1", … by a measure of their exports."""

    kind: Literal["best"] = "best"
    of: list[str] = Field(description="names of the stages, for people")
    measure: Measure
    higher: bool = Field(description="whether more of the measure is better")


class EvaluateJob(WritingJob):
    kind: Literal["evaluate"] = "evaluate"
    measures: list[Measure]


class GateJob(WritingJob):
    kind: Literal["gate"] = "gate"
    segment: Annotated[str, DERIVED] = Field(
        description="key of the segment whose end the gate guards"
    )
    attempt: int
    attempts: int = Field(description="extensions allowed")
    measures: list[Measure]
    requirements: list[Requirement]
    what: Annotated[str, NAME] = Field(description="what the gate guards, for people")


AnyJob = Annotated[
    TokenizerJob
    | DatasetJob
    | FilterJob
    | WeightsJob
    | TrainJob
    | AverageJob
    | BestJob
    | ReferenceJob
    | TeacherJob
    | LikelihoodJob
    | ScoreJob
    | HeldOutJob
    | JudgeJob
    | EnsembleJob
    | ExportJob
    | DrawJob
    | SampleJob
    | RolloutJob
    | EvaluateJob
    | GateJob,
    Field(discriminator="kind"),
]


class Plan(Value):
    etude_plan: Literal[1]
    recipe: str
    title: str
    cite: str | None
    seed: int
    tracking: str | list[Tracker] | None = Field(
        description="the name of one tracker without settings, or a list"
    )
    variant: str | None = Field(default=None, description="the variant that was applied")
    changes: list[str] = Field(default=[], description="what `--set` changed, as written")
    variants: list[str] = Field(default=[], description="the variants that there are")
    values: dict[str, dict[str, Provenance]] = Field(
        default={}, description="block, such as recipe or model.NAME → attribute → value"
    )
    miniature: list[Scaled] | None = Field(
        default=None, description="of a miniature: what became of the recipe's attributes"
    )
    silenced: list[SilencedFinding] = Field(
        default=[], description="what an `allow` silences, with the reasons"
    )
    sources: Sources | None = Field(
        default=None, description="null of a miniature, whose values are no longer the source's"
    )
    outputs: dict[str, str] = Field(description="stage → key of the export of its result")
    stages: dict[str, StageSummary]
    totals: Totals | None = None
    claims: list[Claim]
    jobs: list[AnyJob]
    part: Part | None = later(None, description="null: the plan is whole")
    counts: list[Count] = later(
        [], description="sizes that are known only after tokenizing, of stages in epochs"
    )
    files: dict[str, str] = later(
        {},
        description="path, relative to the spec's folder → SHA-256 of the contents, of the files "
        "beside the spec that the plan was made of: what a model leaves to the folder of its "
        "weights",
    )
    phases: list[Phase] = Field(
        default=[], description="stretches of jobs that need the same machines, in their order"
    )

    @property
    def trackers(self) -> list[Tracker]:
        """Where its runs are logged besides their folder."""
        if isinstance(self.tracking, str):
            return [Tracker(kind=self.tracking)]
        return self.tracking or []

    def trained(self) -> list[TrainJob]:
        """The jobs that train in any case: all but the extensions of gates."""
        return [
            job
            for job in self.jobs
            if isinstance(job, TrainJob) and not job.extends and not self.aside(job)
        ]

    def aside(self, job: Any) -> bool:
        """Whether the result of a job must already exist, since only a part of the plan is made."""
        return self.part is not None and job.id in self.part.aside

    def to_json(self) -> str:
        """The plan as text: equal plans give the same bytes everywhere."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)
