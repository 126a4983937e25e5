"""The jobs in which teachers say how likely tokens are."""

from typing import Any, NamedTuple

from ...spec.record import replace
from ..costs.reading import Rows
from ..placement import flat
from ..plan.plan import TeacherJob
from ..program import Form, Scheduled, ScheduledStage
from ..torchtitan.configuration import torchtitan
from .job_list import Jobs
from .reading import documents, with_reading


class Lesson(NamedTuple):
    """What a teacher reads.

    Attributes:
        form: "dialogs", or "rollouts", which the student has written.
        data: key of the job that makes the source.
        id: of the job.
        number: of records; None: the data set says so, if anything does.
    """

    source: str
    form: str
    data: str
    id: str
    number: int | None = None


def taught(
    jobs: Jobs, program: Scheduled, stage: ScheduledStage, teacher: str, lesson: Lesson
) -> str:
    """The key of the job that keeps a teacher's probabilities of a source's tokens.

    It runs where the teacher was trained, or would continue.
    """
    spec: Any = stage.spec
    trained = program.trained(teacher)
    seq_len, last = stage.segments[-1].seq_len, trained.last
    form = _whole(last, seq_len)
    content = {
        "model": trained.model.knowing(max(seq_len, last.seq_len), last.rope_theta),
        "source": lesson.source,
        "form": lesson.form,
        "seq_len": seq_len,
        "temperature": spec.temperature,
        "top_k": spec.top_k,
        "vocab": min(trained.model.vocab, stage.model.vocab),
        "every_token": spec.loss_on == "all",
        "resources": form.resources,
        "torchtitan": torchtitan(trained, form, 1, jobs.seed, []),
    }
    read = (
        documents(jobs.recipe.datasets[lesson.source], seq_len)
        if lesson.number is None
        else Rows(lesson.number, seq_len)
    )
    content = with_reading(content, [read])
    inputs = {"model": jobs.result[teacher], f"data:{lesson.source}": lesson.data}
    return jobs.add(TeacherJob, content, inputs, id=lesson.id, stage=stage.name)


def _whole(last: Form, seq_len: int) -> Form:
    """The form in which a teacher reads rows of so many tokens: every rank has whole rows and the
    whole vocabulary.

    Args:
        last: its own.
    """
    mesh = flat(last.resources)
    if mesh.tensor > 1:
        mesh = replace(mesh, tensor=1, shard=mesh.shard * mesh.tensor)
    same = mesh == last.resources and seq_len <= last.seq_len
    micro_batch = last.micro_batch if same else 1
    return replace(last, resources=mesh, micro_batch=micro_batch, seq_len=seq_len)
