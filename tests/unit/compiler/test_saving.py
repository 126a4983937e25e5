"""When training is saved: what specs say of it, how often that is, and what room it takes."""

import pytest
from specs import HEAD, after, jobs, plan, stage

from etude.compiler.plan.checkpoints import at_once, inside, size, staying, steps_between
from etude.compiler.plan.difference import difference
from etude.compiler.plan.plan import ExportJob, TrainJob
from etude.compiler.values import Saving
from etude.runtime.emission.emit import emit
from etude.spec.findings.diagnostics import Report
from etude.spec.load import loads

GPUS = 'cluster box { gpus = 4 of "H100 80GB" }\n'


def job(body: str = "") -> TrainJob:
    (made,) = jobs(plan(HEAD + stage(body=body)))
    return made


def saving(body: str) -> Saving:
    return job(body).saving


@pytest.mark.parametrize(
    ("said", "every", "seconds"),
    [
        ("", None, 1200),
        ("checkpoint every 20 min", None, 1200),
        ("checkpoint every 1.5 h", None, 5400),
        ("checkpoint every 7 steps", 7, None),
        ("checkpoint every 1 step", 1, None),
    ],
)
def test_checkpoints_come_by_time_or_by_steps(
    said: str, every: int | None, seconds: float | None
) -> None:
    assert saving(said) == Saving(every=every, seconds=seconds)


@pytest.mark.parametrize(
    ("said", "last", "marks"),
    [
        ("", 2, None),
        ("keep last 5", 5, None),
        ("keep last 1", 1, None),
        ("keep every 50 steps", 2, 50),
        ("keep every 50", 2, 50),
        ("keep all", None, None),
        ("checkpoint every 20 min, keep last 3", 3, None),
    ],
)
def test_a_policy_says_which_stay(said: str, last: int | None, marks: int | None) -> None:
    found = saving(said)
    assert (found.last, found.marks) == (last, marks)


@pytest.mark.parametrize(
    ("said", "code", "help"),
    [
        ("checkpoint every 0 steps", "E208", ""),
        ("checkpoint every 0 min", "E208", ""),
        ("checkpoint every 0.001 min", "E208", ""),
        ("checkpoint every 5 tokens", "E206", "min"),
        ("checkpoint every 2.5 steps", "E207", "2 and 3"),
        ("keep last 0", "E208", ""),
        ("keep last 2 steps", "E206", ""),
        ("keep every 5 min", "E206", "steps"),
        ("keep last 2, keep all", "E309", ""),
        ("keep = last 2", "E323", "`keep last 2`"),
        ("save_total_limit = 3", "E308", "`keep last 2`"),
    ],
)
def test_what_is_no_policy_is_refused_with_what_to_write(said: str, code: str, help: str) -> None:
    report = Report()
    loads(HEAD + stage(body=said), report)
    (found,) = [each for each in report.ordered() if each.severity == "error"]
    assert (found.code, help in f"{found.label} {found.help}") == (code, True), found


def test_when_a_job_is_saved_changes_no_key_and_is_told() -> None:
    old, new = plan(HEAD + stage()), plan(HEAD + stage(body="checkpoint every 7 steps, keep all"))
    assert [job.key for job in old.jobs] == [job.key for job in new.jobs]
    found = difference(old, new)
    (told,) = [each.changed for each in found.jobs if each.kind == "train"]
    assert [(each.name, each.old, each.new) for each in told] == [
        ("checkpoint", "every 20 min", "every 7 steps"),
        ("keep", "last 2", "all"),
    ]


@pytest.mark.parametrize(
    ("body", "count", "stay", "most"),
    [
        ("checkpoint every 30 steps", 3, 0, 3),
        ("checkpoint every 10 steps", 9, 0, 3),
        ("checkpoint every 10 steps, keep last 5", 9, 0, 6),
        ("checkpoint every 10 steps, keep every 50 steps", 9, 1, 3),
        ("checkpoint every 10 steps, keep all", 9, 9, 0),
        ("checkpoint every 100 steps", 0, 0, 0),
    ],
)
def test_how_many_there_are(body: str, count: int, stay: int, most: int) -> None:
    made = job(body)
    assert (inside(made), staying(made), at_once(made)) == (count, stay, most)
    assert size(made) == made.cost.parameters * 12


def test_a_time_becomes_a_number_by_the_estimate() -> None:
    big = HEAD.replace("layers = 2, dim = 64", "layers = 16, dim = 2048").replace(
        "ffn = 128", "ffn = 8192"
    )
    long = {"steps": "100_000", "batch": "64 seqs", "seq_len": "2Ki"}
    whole = plan(big + GPUS + stage(body="checkpoint every 10 min", **long))
    (made,) = jobs(whole)
    seconds = made.cost.seconds
    assert seconds
    assert inside(made) == int(seconds / 600) > 10
    assert steps_between(made) == int(600 * made.steps / seconds) > 1
    assert f"interval={steps_between(made)}," in emit(whole)


def test_without_an_estimate_nobody_knows_the_number() -> None:
    made = job()
    assert made.cost.seconds is None
    assert (inside(made), steps_between(made), at_once(made)) == (None, 10, 3)


def test_torchtitan_gets_steps_and_is_told_what_they_stand_for() -> None:
    text = emit(plan(HEAD + stage(body="keep last 3")))
    assert "# The recipe saves every 1,200 seconds: ten times, since no time is estimated" in text
    assert "interval=10," in text
    assert "keep_latest_k=3," in text
    assert "keep_latest_k=0," in emit(plan(HEAD + stage(body="keep all")))


def exports(text: str) -> dict[str, str | None]:
    """Stage → what the weights of its export are rounded to, of the stages that have one for
    people."""
    made = plan(text)
    dtypes = {job.key: job.dtype for job in made.jobs if isinstance(job, ExportJob)}
    return {name: dtypes[key] for name, key in made.outputs.items()}


@pytest.mark.parametrize(
    ("head", "first", "second", "found"),
    [
        (HEAD, "", "", {"second": None}),
        (HEAD + GPUS, "", "", {"second": "bf16"}),
        (HEAD + GPUS, "", "precision = fp32", {"second": None}),
        (HEAD + GPUS, "", "export = fp32", {"second": None}),
        (HEAD, "export = bf16", "", {"first": "bf16", "second": None}),
        (HEAD, "export = fp32", "export = none", {"first": None}),
        (HEAD, "export = none", "export = bf16", {"second": "bf16"}),
        (HEAD, "", "export = none", {}),
    ],
)
def test_a_stage_says_whether_and_how_its_result_is_exported(
    head: str, first: str, second: str, found: dict[str, str | None]
) -> None:
    text = head + stage("first", body=first) + after("second", body=second)
    assert exports(text) == found


def test_an_average_is_exported_as_it_says() -> None:
    mean = "stage mean: average { of = [first, second], export = bf16 }\n"
    assert exports(HEAD + stage("first") + after("second") + mean) == {"mean": "bf16"}


def test_the_precision_of_an_export_is_in_its_key_and_in_no_other() -> None:
    old, new = (plan(HEAD + stage(body=body)) for body in ("", "export = bf16"))
    differs = [a.kind for a, b in zip(old.jobs, new.jobs, strict=True) if a.key != b.key]
    assert differs == ["export"]
