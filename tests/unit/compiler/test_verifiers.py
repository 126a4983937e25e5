"""Verifiers as declared: settings that fit their kind, and what the plan has of them."""

import json
from typing import Any, TypeVar

import pytest
from specs import HEAD, check, compiled, miniature, only, parsed, place, plan

from etude.compiler.driver import analyse
from etude.compiler.lowering.verifiers import planned
from etude.compiler.plan.measures import VerifiedMeasure
from etude.compiler.plan.plan import BestJob, EvaluateJob, Plan, SampleJob
from etude.compiler.plan.verifiers import Verifier
from etude.spec.load import read

Of = TypeVar("Of")


def found(text: str):
    """The one finding about a verifier, whose place `¦` marks."""
    before = text.partition("¦")[0]
    spec = HEAD + f"verifier v {{ {text.replace('¦', '')} }}\n" + STAGE
    finding = only(check(spec))
    line, column = HEAD.count("\n") + 1, len("verifier v { ") + len(before) + 1
    assert place(finding) == ((line, column) if "¦" in text else (line, 1))
    return finding


STAGE = """stage first: train {
  model = tiny, steps = 1, seq_len = 16, batch = 1 seq, lr = 1e-3, data = web
}
"""


@pytest.mark.parametrize(
    ("text", "code", "message", "help"),
    [
        ('kind = math, pattern = ¦"a"', "E524", "kind `math` has no `pattern`", "`regex` and"),
        ('kind = math, schema = ¦"a"', "E524", "has no `schema`", "`json_schema` has it"),
        ("kind = regex", "E524", "needs `pattern`", "write `pattern = "),
        ("kind = choice", "E524", "needs `options`", "write `options = "),
        ("kind = length", "E524", "needs `most` or `least`", "write `most = 100 words`"),
        ("kind = json_schema", "E524", "needs `schema`", "write `schema = "),
        ('kind = choice, options = ¦["A"]', "E524", "leaves no choice", "at least two"),
        ("kind = length, least = 2, soft = ¦3", "E524", "there is no `most`", "`most = 100 words`"),
        ("kind = length, most = 2, soft = ¦3", "E524", "cannot fall over 3 words", "`soft = 2`"),
        ("kind = length, most = 2, least = ¦3", "E524", "no answer has 3 words or more", "`least"),
        ('kind = regex, pattern = ¦"a("', "E526", "no regular expression", "backslash"),
        ('kind = exact, extract = ¦"a"', "E526", "has no group", "parentheses"),
        ("kind = ¦maths", "E202", "`maths` is not one of", "`math`"),
    ],
)
def test_settings_that_do_not_fit(text, code, message, help):
    finding = found(text)
    assert finding.code == code
    assert message in finding.message
    assert help in finding.help


def test_a_plan_has_the_settings_that_are_not_default():
    recipe = parsed(
        HEAD
        + 'verifier gsm { kind = exact, extract = "#### (.*)" }\n'
        + "verifier brief { kind = length, most = 100 words }\n"
        + 'verifier shape { kind = json_schema, schema = "a.json" }\n'
        + STAGE
    )
    assert [planned(recipe, name).model_dump() for name in ("gsm", "brief", "shape")] == [
        {"kind": "exact", "extract": "#### (.*)"},
        {"kind": "length", "most": 100},
        {"kind": "json_schema", "schema_file": "a.json"},
    ]
    assert planned(recipe, "gsm").compares
    assert not planned(recipe, "brief").compares


DRAWS = """
dataset sums {{ sample = arithmetic, kind = prompts }}
verifier right {{ kind = math }}
verifier brief {{ kind = length, most = 9 }}
stage drafts: sample {{ prompts = sums, max_tokens = 4, draws = 4, {} }}
"""


def the(made: Plan, kind: type[Of]) -> Of:
    """The one job of a kind."""
    return only([job for job in made.jobs if isinstance(job, kind)])


def by_key(made: Plan) -> dict[str, Any]:
    return {job.key: job for job in made.jobs}


def drafts(attributes: str) -> str:
    return HEAD + STAGE + DRAWS.format(attributes)


def test_a_sample_stage_has_its_verifiers_and_prompts_with_answers():
    made = plan(drafts("verify = [right, brief]"))
    job = the(made, SampleJob)
    assert {name: each.kind for name, each in job.verify.items()} == {
        "right": "math",
        "brief": "length",
    }
    data = by_key(made)[job.inputs["prompts"]]
    assert list(data.answers) == ["right"]
    assert job.keep == 0


def test_the_settings_of_a_verifier_are_part_of_the_key_and_no_verifier_changes_none():
    def keys(text: str, attributes: str = "verify = [brief]"):
        made = plan(drafts(attributes).replace("most = 9", text))
        return {job.kind: job.key for job in made.jobs if job.kind in ("sample", "draw", "dataset")}

    nine, eight = keys("most = 9"), keys("most = 8")
    assert {kind for kind in nine if nine[kind] != eight[kind]} == {"sample"}
    assert "verify" not in next(
        job
        for job in json.loads(plan(drafts("top_p = 1")).to_json())["jobs"]
        if job["kind"] == "sample"
    )


@pytest.mark.parametrize(
    ("attributes", "code", "message"),
    [
        ("verify = [rihgt]", "E402", "there is no verifier `rihgt`"),
        ("verify = [right, right]", "E213", "`right` is named twice"),
        ("verify = [sums]", "E402", "there is no verifier `sums`"),
        ("verify = []", "E208", "empty"),
        ("keep = best", "E521", "or `verify` to tell which are right"),
        ("verify = [right], keep = 5", "E521", "cannot keep 5 of 4 draws"),
    ],
)
def test_verifiers_that_a_sample_stage_cannot_have(attributes, code, message):
    finding = only(check(drafts(attributes)))
    assert (finding.code, message in finding.message) == (code, True), finding.message


def test_pairs_need_a_judge_or_a_verifier():
    text = drafts("{}") + (
        "stage rm: reward { from = first, data = drafts.pairs, steps = 1, batch = 1 pairs, "
        "lr = 1e-5 }\n"
    )
    assert [d.code for d in check(text.replace("{}", "top_p = 1"))] == ["W648"]
    assert check(text.replace("{}", "verify = [right]")) == []


def test_an_unused_verifier_is_noted():
    found = compiled(drafts("verify = [right]"))[1].ordered()
    assert "no stage names the verifier `brief`" in [d.message for d in found]


def test_a_miniature_has_a_verifier_that_hardly_learned_models_pass():
    small = only(
        [job for job in miniature(drafts("verify = [right]")).jobs if job.kind == "sample"]
    )
    assert small.verify == {"right": Verifier(kind="length", least=1)}


EXAM = "stage exam: evaluate {{ {} }}\n"
ASKING = "prompts = sums, max_tokens = 4"


def test_an_evaluation_asks_once_for_all_its_verifiers():
    text = drafts("top_p = 1") + EXAM.format(f"verify = [right, brief], draws = 4, {ASKING}")
    made = plan(text)
    exam = the(made, EvaluateJob)
    measures = [each for each in exam.measures if isinstance(each, VerifiedMeasure)]
    assert measures == exam.measures
    assert [(each.name, list(each.verify), each.limit) for each in measures] == [
        ("accuracy(right)", ["right"], 256),
        ("accuracy(brief)", ["brief"], 256),
    ]
    drawn = by_key(made)[exam.inputs["draws"]]
    assert (drawn.id, drawn.draws, drawn.limit) == ("exam.draws", 4, 256)
    assert list(by_key(made)[exam.inputs["prompts"]].answers) == ["right"]
    assert "judged" not in exam.inputs


def test_a_judge_scores_the_same_answers():
    rm = "dataset ranked { sample = python_functions, kind = preferences }\n" + (
        "stage rm: reward { from = first, data = ranked, steps = 1, batch = 1 pairs, lr = 1e-5 }\n"
    )
    asked = f"from = first, judge = rm, verify = [right], draws = 2, {ASKING}"
    made = plan(drafts("top_p = 1") + rm + EXAM.format(asked))
    exam = the(made, EvaluateJob)
    assert [measure.name for measure in exam.measures] == ["reward(rm)", "accuracy(right)"]
    judged = by_key(made)[exam.inputs["judged"]]
    assert judged.inputs["draws"] == exam.inputs["draws"]


def test_one_answer_to_each_prompt_leaves_plans_of_judges_as_they_were():
    rm = "dataset ranked { sample = python_functions, kind = preferences }\n" + (
        "stage rm: reward { from = first, data = ranked, steps = 1, batch = 1 pairs, lr = 1e-5 }\n"
    )
    made = plan(drafts("top_p = 1") + rm + EXAM.format(f"from = first, judge = rm, {ASKING}"))
    exam = the(made, EvaluateJob)
    assert "draws" not in exam.measures[0].model_dump()
    assert by_key(made)[exam.inputs["draws"]].draws == 1


def test_a_best_stage_chooses_by_a_verifier():
    text = drafts("top_p = 1") + (
        "stage second: train { from = first, steps = 1, lr = 1e-4 }\n"
        f"stage pick: best {{ of = [first, second], verify = [right], {ASKING} }}\n"
    )
    pick = the(plan(text), BestJob)
    assert (pick.measure.name, pick.higher) == ("accuracy(right)", True)
    assert {"draws.0", "draws.1", "prompts.0", "prompts.1"} <= set(pick.inputs)


@pytest.mark.parametrize(
    ("attributes", "code", "message"),
    [
        ("verify = [right], prompts = sums", "E522", "`verify` also needs `max_tokens`"),
        ("verify = [wrong], " + ASKING, "E402", "there is no verifier `wrong`"),
        ("loss = [web], draws = 2", "E522", "belongs to `judge` and `verify`"),
        ("verify = [right], prompts = web, max_tokens = 4", "E511", "prompts are needed here"),
    ],
)
def test_evaluations_that_cannot_verify(attributes, code, message):
    finding = only(check(drafts("top_p = 1") + EXAM.format(attributes)))
    assert (finding.code, message in finding.message) == (code, True), finding.message


ASKS = """
dataset asks {{ files = ["a.jsonl", "b.parquet"], kind = prompts, documents = 9, {} }}
stage drafts: sample {{ prompts = asks, max_tokens = 4, verify = [brief, right] }}
verifier right {{ kind = math }}
verifier brief {{ kind = length, most = 9 }}
"""


@pytest.mark.parametrize(
    ("fields", "record", "told"),
    [
        ("", {"prompt": "?", "answer": "1"}, ""),
        ("", {"prompt": "?", "answer": 0}, ""),
        ("", {"prompt": "?", "solution": "1"}, "no `answer`, and the verifier `right` must"),
        ("", {"prompt": "?", "answer": None}, "no `answer`"),
        (', fields = { answer = "solution" }', {"prompt": "?", "solution": "1"}, ""),
        (', fields = { answer = "solution" }', {"prompt": "?", "answer": "1"}, "no `solution`"),
        ("", ["no", "record"], ""),
    ],
)
def test_a_look_at_the_files_tells_whether_prompts_have_answers(fields, record, told, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "b.parquet").write_bytes(b"not looked at")
    (tmp_path / "spec.etude").write_text(HEAD + STAGE + ASKS.format(fields.lstrip(", ")))
    report = analyse(read(tmp_path / "spec.etude"), root=tmp_path).report
    assert [d.code for d in report.errors] == ["E525"] * bool(told)
    assert told in "".join(d.message for d in report.errors)


def test_prompts_need_no_answers_where_no_verifier_compares(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "?"}\n')
    (tmp_path / "b.parquet").touch()
    text = HEAD + STAGE + ASKS.format("").replace("[brief, right]", "[brief]")
    (tmp_path / "spec.etude").write_text(text)
    assert analyse(read(tmp_path / "spec.etude"), root=tmp_path).report.errors == []
