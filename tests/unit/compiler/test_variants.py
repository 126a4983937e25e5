"""Variants and `--set`: what they change, what they share, and where everything came from."""

from pathlib import Path
from typing import Any

import pytest
from specs import HEAD, after, analysed, compiled, only, stage

from etude.compiler.driver import analyse, compile
from etude.compiler.plan.plan import Plan
from etude.compiler.plan.provenance import Origin, provenance
from etude.spec.findings.diagnostics import Diagnostic, Report
from etude.spec.load import loads, read

POST = """dataset ranked { sample = python_functions, kind = preferences }
rounds align 2 {
  stage rm: reward {
    from = first, data = ranked[1..round], steps = 5, lr = 1e-4, batch = 4 pairs
    drop similar > 90%
  }
  stage dpo: dpo {
    from = first, data = ranked[round], steps = 5, lr = 1e-4, batch = 4 pairs, beta = 0.1
  }
}
"""
BASE = (
    "let peak = 1e-3\n"
    + HEAD
    + stage(lr="peak", optimizer="adamw { weight_decay = 0.1 }", body="checkpoint every 50 steps")
    + after(lr="last -> 0", body="gate seq_len { require loss(short) < 9.0 }")
    + "stage third: train { from = first, steps = 10, lr = 1e-4 }\n"
    + "stage exam: evaluate { from = second, loss = [web], needle = { depths = 3 } }\n"
    + POST
)


def changed(text: str, variant: str = "", *sets: str) -> Plan:
    plan, report = compiled(text, variant=variant, sets=sets)
    assert plan, [(d.code, d.message, d.span) for d in report.ordered()]
    return plan


def errors(text: str, variant: str = "", *sets: str) -> list[Diagnostic]:
    report = analysed(text, variant=variant, sets=sets, each_variant="always").report
    return [d for d in report.ordered() if d.severity == "error"]


def keys(plan: Plan) -> dict[str, str]:
    return {job.id: job.key for job in plan.jobs}


def what_runs(plan: Plan) -> Any:
    return plan.jobs, plan.outputs, plan.stages, plan.claims, plan.title, plan.seed


WAYS = """recipe test {{}}
{head} {{
  {old}
}}
"""


@pytest.mark.parametrize(
    ("head", "old", "change", "new"),
    [
        ("dialog x", 'header = "{role}", end_of_turn = "e"', "protocol = llama3", ""),
        ("dialog x", 'template = "a.jinja"', "protocol = llama3", ""),
        ("dialog x", 'header = "{role}", roles = [assistant]', 'template = "a.jinja"', ""),
        ("dialog x", "protocol = llama3", 'header = "{role}"', ""),
        ("dialog x", 'header = "{role}", system = "s"', "protocol = llama3", 'system = "s"'),
        ("model x", 'hub = "a/b", revision = "c", context = 4', 'weights = "f"', "context = 4"),
        ("model x", 'weights = "f", context = 4', 'hub = "a/b"', "context = 4"),
        ("model x", 'weights = "f", context = 4', "weights = default", ""),
        ("dataset x", 'files = "a"', "sample = arithmetic", ""),
        ("tokenizer x", "bytes", 'hub = "a/b"', ""),
        ("tokenizer x", "train = { on [a], vocab 300 }", "bytes = true", ""),
        ("cluster x", "cpus = 2", 'gpus = 8 of "H100 80GB"', ""),
        ("stage x: sft", "epochs = 2", "steps = 3", ""),
        ("stage x: train", "model = m, tokens = 2", "from = a", "tokens = 2"),
        (
            "stage x: best",
            "of = [a], loss = [d], seq_len = 8",
            "needle = { depths = 2 }",
            "of = [a]",
        ),
        (
            "stage x: evaluate",
            'judge = a, prompts = d, limit = 2, suites = { m ["t"] }',
            "judge = default",
            'limit = 2, suites = { m ["t"] }',
        ),
        ("stage x: evaluate", "needle = { depths = 2 }", "loss = [d]", "needle = { depths = 2 }"),
    ],
)
def test_what_a_change_excludes_goes_and_what_belonged_to_it_too(
    head: str, old: str, change: str, new: str
) -> None:
    name, _, value = change.partition(" = ")
    given = "" if value == "default" else name if value == "true" else change
    report = Report()
    found = loads(WAYS.format(head=head, old=old), report, sets=[f"x.{change}"])
    edited = loads(WAYS.format(head=head, old=f"{new}\n{given}"), report)
    assert found, [d.message for d in report.ordered()]
    assert found == edited


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        ("first.lr = 2e-3", "lr = peak", "lr = 2e-3"),
        ("peak = 2e-3", "let peak = 1e-3", "let peak = 2e-3"),
        ("first.steps = 60", "steps = 100", "steps = 60"),
        ("first.tokens = 4800", "steps = 100", "tokens = 4800"),
        ("second.gate = default", "gate seq_len { require loss(short) < 9.0 }", ""),
        ("first.checkpoint = 20 steps", "every 50 steps", "every 20 steps"),
        ("first.optimizer.weight_decay = 0", "weight_decay = 0.1", "weight_decay = 0"),
        (
            "first.optimizer = adam { eps = 1e-6 }",
            "adamw { weight_decay = 0.1 }",
            "adam { eps = 1e-6 }",
        ),
        (
            "first.parallel.micro_batch = 2",
            "checkpoint",
            "parallel = { micro_batch 2 }\n  checkpoint",
        ),
        ("exam.needle.depths = 2", "depths = 3", "depths = 2"),
        ("exam.needle = default", "loss = [web], needle = { depths = 3 }", "loss = [web]"),
        ("align.dpo.beta = 0.3", "beta = 0.1", "beta = 0.3"),
        ("align.rm.similar = 80%", "similar > 90%", "similar > 80%"),
        ("align.rounds = 3", "align 2", "align 3"),
        ("tiny.dim = 128", "dim = 64", "dim = 128"),
        ("model.tiny.dim = 128", "dim = 64", "dim = 128"),
        ("recipe.seed = 2", "seed = 1", "seed = 2"),
        ("web.sample = arithmetic", "sample = python_docs", "sample = arithmetic"),
        ('web.files = "a.jsonl"', "sample = python_docs", 'files = "a.jsonl"'),
        (
            'ranked.fields.prompt = "ask"',
            "kind = preferences",
            'kind = preferences, fields = { prompt = "ask" }',
        ),
        ("first.data = { web 50%, math 50% }", "data = web", "data = { web 50%, math 50% }"),
    ],
)
def test_a_change_does_what_editing_the_text_does(change: str, old: str, new: str) -> None:
    assert BASE.count(old)
    edited = BASE.replace(old, new, 1)
    assert what_runs(changed(edited)) != what_runs(changed(BASE))
    assert what_runs(changed(BASE, "", change)) == what_runs(changed(edited))
    block = f"variant other {{ {change} }}\n"
    assert what_runs(changed(BASE + block, "other")) == what_runs(changed(edited))
    assert what_runs(changed(BASE + block)) == what_runs(changed(BASE))


def test_the_command_line_changes_what_the_variant_left() -> None:
    text = BASE + "variant hot { first.lr = 2e-3, third.lr = 3e-4 }\n"
    made = changed(text, "hot", "first.lr=4e-3", "first.lr=5e-3")
    same = changed(text.replace("lr = peak", "lr = 5e-3"), "", "third.lr=3e-4")
    assert what_runs(made) == what_runs(same)
    assert (made.variant, made.changes) == ("hot", ["first.lr=4e-3", "first.lr=5e-3"])
    assert made.variants == ["hot"]


def test_variants_share_all_jobs_up_to_what_they_change() -> None:
    text = BASE + "variant gentle { second.steps = 12 }\nvariant other { align.dpo.beta = 0.3 }\n"
    base, gentle, other = (keys(changed(text, name)) for name in ("", "gentle", "other"))
    assert set(base) == set(gentle) == set(other)
    differ = {name for name in base if base[name] != gentle[name]}
    assert {"second.1", "exam"} <= differ
    assert all("second" in name or name.endswith("exam") for name in differ)
    assert {name for name in base if base[name] != other[name]} == {
        name for name in base if "dpo" in name and "train" not in name
    } - {name for name in base if name.startswith(("dataset", "reference"))}


def test_claims_are_about_the_recipe_and_not_about_its_variants() -> None:
    text = BASE + "expect { first.steps = 100 }\nvariant brief { first.steps = 50 }\n"
    assert [claim.what for claim in changed(text).claims] == ["first.steps"]
    assert not changed(text, "brief").claims
    assert not errors(text)
    assert not errors(text, "", "first.steps=50")


@pytest.mark.parametrize(
    ("block", "code", "words"),
    [
        ("first.¦rate = 3", "E308", "no attribute `rate`"),
        ("first.lr = ¦fast", "E201", "must be a number"),
        ("first.batch = ¦17 tokens", "E442", "not a whole number"),
        ("¦frist.lr = 3", "E342", "there is no `frist`"),
        ("¦preak = 3", "E342", "there is no `let preak`"),
        ("align.¦dop.beta = 3", "E342", "no stage `dop`"),
        ("align.¦dpo = 3", "E342", "the attribute is missing"),
        ("align.rounds = ¦[2]", "E201", "number of rounds"),
        ("¦first.optimizer.betas.x = 3", "E342", "is not an attribute"),
        ("¦first.lr.end = 3", "E343", "has no parts"),
        ("¦second.optimizer.eps = 3", "E343", "not in this block"),
        ("¦second.gate.needle = 3", "E343", "has no parts"),
        ("¦checkpoint every 3 steps", "E341", "not a change"),
        ("first.lr = 1 within ¦3%", "E341", "not a change"),
        ("first.lr = 1e-3, ¦first.lr = 2e-3", "E309", "given twice"),
    ],
)
def test_what_is_wrong_with_a_variant_is_found_in_it(block: str, code: str, words: str) -> None:
    text = BASE + f"variant odd {{ {block.replace('¦', '')} }}\n"
    found = only(errors(text))
    assert found.code == code
    assert words in found.message
    at = len("variant odd { ") + block.index("¦") + 1
    if "within" not in block:
        assert (found.span.line, found.span.column) == (BASE.count("\n") + 1, at)
    if code not in ("E341", "E309"):  # those are found when the block is read
        assert found.message.startswith("variant `odd`: ")


def test_what_a_variant_breaks_elsewhere_is_shown_at_its_change() -> None:
    text = BASE + "variant wide {\n  tiny.heads = 3\n  recipe.seed = 4\n}\n"
    found = only(errors(text))
    assert (found.code, found.span.line) == ("E418", BASE.count("\n") + 2)
    text = BASE + "variant long {\n  recipe.seed = 4\n  first.seq_len = 48\n}\n"
    text = text.replace("batch = 4 seqs", "batch = 64 tokens")
    found = only(errors(text))
    assert (found.code, found.span.line) == ("E442", BASE.count("\n") + 3)
    ((place, note), *_) = found.notes
    assert (text[place.start : place.end], note) == ("64 tokens", "found here")


def test_names_of_several_blocks_need_their_kind() -> None:
    text = BASE + "dataset tiny { sample = arithmetic }\nvariant wide { tiny.dim = 128 }\n"
    found = only(errors(text))
    assert (found.code, found.help) == (
        "E342",
        "write `model.tiny.dim = …`, or begin with `dataset.`",
    )
    assert not errors(text.replace("{ tiny.dim", "{ model.tiny.dim"))


@pytest.mark.parametrize(
    ("given", "code", "place"),
    [
        ("first.lr", "E341", (1, 9)),
        ("first.lr=", "E101", (1, 9)),
        ("first.lr=1e-3 5", "E101", (1, 15)),
        ("first.lr=1e-3, second.lr=2e-3", "E341", (1, 1)),
        ("first.rate=3", "E308", (1, 7)),
        ("frist.rate=3", "E342", (1, 1)),
        ("first.lr=3 steps", "E206", (1, 10)),
        ("", "E341", (1, 1)),
    ],
)
def test_what_is_wrong_on_the_command_line_is_shown_there(
    given: str, code: str, place: tuple[int, int]
) -> None:
    found = only(errors(BASE, "", "recipe.seed=3", given))
    assert (found.code, found.span.source.name) == (code, "--set 2")
    assert (found.span.line, found.span.column) == place


def test_a_variant_that_there_is_not_is_suggested() -> None:
    found = only(errors(BASE + "variant hot { peak = 1 }\n", "hat"))
    assert (found.code, found.help) == ("E402", "did you mean `hot`?")
    assert "declare it" in only(errors(BASE, "hat")).help


def origins(path: Path, variant: str = "", *sets: str) -> dict[tuple[str, str], Origin]:
    found = analyse(read(path), variant=variant, sets=sets)
    assert found.program, found.report.ordered()
    return provenance(found.program)


def test_every_value_says_where_it_came_from(tmp_path: Path) -> None:
    main = tmp_path / "main.etude"
    header, rest = BASE.split("model tiny", 1)
    main.write_text(
        header.replace(
            "recipe test",
            'use "parts/rest.etude"\nmodel big { size = "8B", dim = 64, '
            "heads = 4, kv_heads = 2, ffn = 128, layers = 2 }\nrecipe test",
        )
        + stage("large", model="big", lr="0 -> peak for 5 steps then -> 0")
        + "variant hot { peak = 2e-3, align.dpo.beta = 0.3 }\n"
    )
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "rest.etude").write_text("model tiny" + rest)
    found = origins(main, "hot", "third.lr=9e-4")
    kinds = {name: origin.kind for name, origin in found.items()}
    assert kinds["recipe", "seed"] == "file"
    assert kinds["model.big", "dim"] == kinds["large", "steps"] == "file"
    assert kinds["model.big", "vocab"] == kinds["large", "rope_theta"] == "size"
    assert kinds["model.tiny", "dim"] == kinds["second", "lr"] == "use"
    assert kinds["first", "lr"] == kinds["align.2.dpo", "beta"] == "variant"
    assert kinds["third", "lr"] == "set"
    assert kinds["third", "clip"] == kinds["third", "optimizer"] == "from"
    assert kinds["first", "clip"] == kinds["model.tiny", "norm_eps"] == "default"
    assert found["first", "lr"].text.startswith("let peak, variant hot, main.etude:")
    assert found["third", "lr"].text == "--set third.lr=9e-4"
    assert found["third", "clip"].text == "from first"
    assert found["model.tiny", "dim"].text == "parts/rest.etude:1:32"
    kinds = {name: origin.kind for name, origin in origins(main).items()}
    assert kinds["first", "lr"] == "let"
    assert "with let peak" in found["large", "lr"].text
    lines = (tmp_path / "parts" / "rest.etude").read_text().splitlines()
    for (block, attribute), origin in found.items():
        if origin.kind == "use" and (block, attribute) != ("first", "lr"):
            line = lines[origin.span.line - 1] if origin.span else ""
            assert attribute.split(".")[0].rstrip("_") in line, (block, attribute, line)


def test_a_plan_is_the_same_wherever_it_lies_and_its_keys_wherever_its_lines_are(
    tmp_path: Path,
) -> None:
    texts = []
    for folder in (tmp_path / "a", tmp_path / "far" / "away"):
        folder.mkdir(parents=True)
        (folder / "main.etude").write_text('use "rest.etude"\n' + HEAD.split("\n", 1)[0])
        (folder / "rest.etude").write_text(BASE.replace(HEAD, HEAD.split("\n", 1)[1]))
        found = analyse(read(folder / "main.etude"), sets=["first.lr=2e-3"])
        made = compile(found)
        assert made, found.report.ordered()
        texts.append(made.plan.to_json())
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]
    assert '"place": "rest.etude:' in texts[0]
    moved = "\n\n# moved\n" + BASE.replace("lr = peak", "lr   =   1e-3")
    assert keys(changed(moved)) == keys(changed(BASE))
    assert changed(moved) == changed(BASE)
    assert changed(moved).to_json() != changed(BASE).to_json()


def test_a_variant_changes_what_a_used_file_declares(tmp_path: Path) -> None:
    main = tmp_path / "main.etude"
    main.write_text(f'use "rest.etude"\n{BASE}variant wide {{ other.sample = needles }}\n')
    (tmp_path / "rest.etude").write_text(
        "dataset other { sample = arithmetic }\nvariant hot { peak = 2e-3 }\n"
    )
    assert origins(main, "wide")["dataset.other", "sample"].kind == "variant"
    assert origins(main, "hot")["first", "lr"].text.startswith("let peak, variant hot, rest.etude:")
    assert origins(main)["dataset.other", "sample"].text == "rest.etude:1:26"


def test_the_variants_of_the_example_have_its_trunk() -> None:
    path = Path(__file__).parents[3] / "examples" / "ablation_tiny.etude"
    plans = {}
    for variant in ("", "mixed", "brief"):
        found = analyse(read(path), variant=variant)
        made = compile(found)
        assert made, found.report.ordered()
        assert made.plan.variants == ["mixed", "brief"]
        assert not found.report.diagnostics
        plans[variant] = keys(made.plan)
    trunk = {"tokenizer.words", "dataset.docs", "dataset.sums", "pretrain.1"}
    assert set(plans[""]) == trunk | {"anneal.1", "export.anneal", "heldout.exam", "exam"}
    for variant in ("mixed", "brief"):
        same = {name for name, key in plans[""].items() if plans[variant][name] == key}
        assert same == trunk


@pytest.mark.parametrize(
    ("within", "variant", "expected"),
    [
        ("", "first.optimizer = adamw { weight_decay = 0 }", {"N602"}),
        ("", 'first.optimizer = adamw { weight_decay = 0 }\nallow N602 "wanted"', set()),
        ("", 'first.clip = 2\nallow N602 "wanted"', {"W651"}),
        (
            'optimizer = adamw { weight_decay = 0 }\nallow N602 "wanted"',
            "first.optimizer = adamw { weight_decay = 0.1 }",
            set(),
        ),
    ],
)
def test_what_a_block_allows_is_silent_in_the_recipe_and_its_variants(
    within: str, variant: str, expected: set[str]
) -> None:
    text = HEAD.replace("300", "320").replace("dataset math { sample = arithmetic }\n", "")
    text += stage(lr="0 -> 1e-3 for 5 steps then -> 0", body=within)
    found = analysed(text + f"variant other {{\n{variant}\n}}\n", each_variant="always")
    report = found.report
    assert {d.code for d in report.diagnostics} == expected
