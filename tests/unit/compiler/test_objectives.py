"""What stages optimize: how attributes reach jobs, their keys, and torchtitan."""

from typing import get_args

import pytest
from specs import HEAD, after, check, jobs, miniature, plan, stage

from etude.compiler.plan.plan import (
    DatasetJob,
    Distill,
    Dpo,
    Kto,
    NextToken,
    Plan,
    ReferenceJob,
    Reward,
    Sft,
    TeacherJob,
)
from etude.runtime.emission.emit import emit
from etude.spec.schema.preference_losses import LOSSES


def objectives(of: Plan, *names: str) -> list[object]:
    return [job.objective for name in names for job in jobs(of, name)]


def test_z_loss_is_in_the_objective_and_in_the_key() -> None:
    without, given = plan(HEAD + stage()), plan(HEAD + stage(z_loss="1e-4"))
    assert objectives(given, "first") == [NextToken(z_loss=1e-4)]
    assert jobs(given)[0].key != jobs(without)[0].key
    # A stage without it keeps the key, and the plan, that it had before there was such a thing.
    assert jobs(plan(HEAD + stage(z_loss="0")))[0].key == jobs(without)[0].key
    assert "z_loss" not in without.to_json()


def test_a_plan_with_z_loss_is_the_same_after_json() -> None:
    made = plan(HEAD + stage(z_loss="1e-4"))
    assert Plan.model_validate_json(made.to_json()) == made


def test_z_loss_is_inherited_until_a_stage_says_otherwise() -> None:
    chats = "dataset human { sample = python_functions, kind = dialogs }\n"
    sft = "stage tuned: sft { data = human, steps = 3, lr = 1e-4 }\n"
    text = HEAD + chats + stage(z_loss="1e-4") + after() + sft + after("third")
    made = plan(text + after("off", from_="second", z_loss="0"))
    found = objectives(made, "second", "third", "off")
    assert found == [NextToken(z_loss=1e-4), NextToken(z_loss=1e-4), NextToken()]
    shown = {name: stage.values.get("z_loss") for name, stage in made.stages.items()}
    assert shown["tuned"] is None
    assert shown["second"]
    assert (shown["second"].value, shown["second"].origin) == ("0.0001", "from first")
    assert shown["off"]
    assert (shown["off"].value, shown["off"].origin) == ("0", "spec")


def test_torchtitan_gets_the_loss_with_its_term() -> None:
    text = emit(plan(HEAD + stage(z_loss="1e-4")))
    assert "from etude.runtime.engine.objectives import LanguageLoss" in text
    assert "loss_fn=LanguageLoss.Config(global_vocab_size=300, terms={'z_loss': 0.0001})" in text
    assert "LanguageLoss" not in emit(plan(HEAD + stage()))


def test_decay_of_matrices_is_a_group_of_its_own_before_the_rest() -> None:
    (job,) = jobs(plan(HEAD + stage(optimizer="adamw { weight_decay = 0.2, decay = matrices }")))
    given = job.torchtitan["optimizer"]["param_groups"]
    assert [group["optimizer_kwargs"]["weight_decay"] for group in given] == [0.0, 0.2]
    assert given[1]["pattern"] == ".*"
    rest = {"optimizer_name": given[0]["optimizer_name"]}
    assert rest == {"optimizer_name": given[1]["optimizer_name"]}
    (plain,) = jobs(plan(HEAD + stage(optimizer="adamw { weight_decay = 0.2, decay = all }")))
    (before,) = jobs(plan(HEAD + stage(optimizer="adamw { weight_decay = 0.2 }")))
    assert plain.key == before.key != job.key


def test_an_inherited_optimizer_decays_as_before() -> None:
    made = plan(HEAD + stage(optimizer="adam { decay = matrices }") + after())
    (first,), (second,) = jobs(made, "first"), jobs(made, "second")
    assert first.torchtitan["optimizer"] == second.torchtitan["optimizer"]
    value = made.stages["second"].values["optimizer"].value
    assert value.startswith("adam, betas [0.9, 0.95], weight_decay 0.1, decay matrices, eps 1e-08")


def test_torchtitan_gets_both_groups() -> None:
    text = emit(plan(HEAD + stage(optimizer="adamw { decay = matrices }")))
    assert text.count("ParamGroupConfig(") == 2
    assert "pattern='.*'" in text


AFTER = (
    HEAD
    + stage()
    + "dataset pairs { files = 'p.jsonl', kind = preferences, pairs = 100 }\n"
    + "dataset rated { files = 'r.jsonl', kind = ratings, ratings = 100 }\n"
    + "dataset talk { files = 't.jsonl', kind = dialogs, tokens = 100k, dialogs = 100 }\n"
).replace("'", '"')


def steps(kind: str, **attributes: str) -> int:
    """Steps of the stage that trains on 100 pairs, or on 100,000 tokens of dialogs."""
    given = {"data": "talk" if kind == "sft" else "pairs", "lr": "1e-5", **attributes}
    lines = ", ".join(f"{name} = {value}" for name, value in given.items())
    (job,) = jobs(plan(f"{AFTER}stage tuned: {kind} {{ {lines} }}\n"), "tuned")
    assert job.objective.model_dump().get("drop_last", False) == ("drop_last" in given)
    return job.steps


@pytest.mark.parametrize("kind", ["dpo", "reward"])
@pytest.mark.parametrize(
    ("epochs", "filled", "dropped"),
    [("1 epoch", 6, 6), ("2 epochs", 13, 12), ("3 epochs", 19, 18), ("1.5 epochs", 9, 9)],
)
def test_steps_of_epochs_of_preferences(kind: str, epochs: str, filled: int, dropped: int) -> None:
    """100 pairs are 6.25 batches of 16."""
    given = {"epochs": epochs, "batch": "16 pairs"}
    assert steps(kind, **given) == filled
    assert steps(kind, **given, drop_last="true") == dropped


@pytest.mark.parametrize("batch", ["8 seqs", "8k tokens"])
def test_steps_of_epochs_of_dialogs(batch: str) -> None:
    """100,000 tokens are 12.5 batches of 8 rows of 1,000 tokens."""
    given = {"epochs": "3 epochs", "batch": batch, "seq_len": "1000"}
    assert steps("sft", **given) == 38
    assert steps("sft", **given, drop_last="true") == 36


@pytest.mark.parametrize("kind", ["sft", "distill"])
def test_steps_of_epochs_of_dialogs_that_are_counted(kind: str) -> None:
    """100 dialogs are 6.25 batches of 16; all that is known of their tokens is the most."""
    given = {"data": "talk", "lr": "1e-5", "epochs": "2 epochs", "batch": "16 dialogs"}
    given |= {"teacher": "first"} if kind == "distill" else {}
    lines = ", ".join(f"{name} = {value}" for name, value in given.items())
    made = plan(
        f"{AFTER}stage tuned: {kind} {{ {lines} }}\nstage more: {kind} {{ steps = 3, "
        f"lr = 1e-5, data = talk{', teacher = first' * (kind == 'distill')} }}\n"
    )
    (job,), (more,) = jobs(made, "tuned"), jobs(made, "more")
    assert isinstance(job.objective, Sft | Distill)
    assert (job.steps, job.objective.counts, job.rows) == (13, "dialogs", "dialogs")
    assert job.data["talk"].epochs == pytest.approx(13 * 16 / 100)
    assert made.stages["tuned"].values["batch"].value == "16 dialogs"
    assert made.stages["tuned"].rows == "dialogs"
    # What continues it counts the same.
    assert (more.sequences, more.rows) == (3 * 16, "dialogs")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "E450",
            "stage t: sft { data = talk, steps = 9, lr = 1e-5, "
            "batch = 8 seqs for 4 steps then 16 dialogs }",
        ),
        (
            "E450",
            "stage t: sft { data = talk, steps = 9, lr = 1e-5, "
            "batch = last for 4 steps then 16 dialogs }",
        ),
        ("E407", "stage t: sft { data = talk, tokens = 9k, lr = 1e-5, batch = 16 dialogs }"),
        (
            "E408",
            "stage t: sft { data = talk, steps = 9, lr = 1e-5, batch = 16 dialogs }\n"
            "stage u: train { steps = 9 }",
        ),
        ("E206", "stage t: train { steps = 9, batch = 16 dialogs }"),
    ],
)
def test_what_a_batch_of_dialogs_cannot_be(code: str, text: str) -> None:
    assert [found.code for found in check(AFTER + text + "\n")] == [code]


def test_steps_are_as_written_where_no_epochs_are_asked_for() -> None:
    assert steps("dpo", steps="7", batch="16 pairs", drop_last="true") == 7


def test_drop_last_needs_one_batch() -> None:
    text = "stage tuned: sft { data = talk, steps = 9, lr = 1e-5, drop_last = true, "
    text += "batch = 4 seqs for 5 steps then 8 seqs }\n"
    (found,) = [d for d in check(AFTER + text) if d.code == "E458"]
    assert found.message == "`drop_last` needs a constant batch, but it changes"


def test_losses_of_reward_models() -> None:
    """Margins are read where a stage learns from them, by a job of their own."""
    own = {"margin": "scale", "center": "0.01"}
    given = {"data": "pairs", "steps": "9", "batch": "16 pairs", "lr": "1e-6"}
    lines = [", ".join(f"{n} = {v}" for n, v in {**given, **of}.items()) for of in (own, {})]
    text = AFTER + "".join(
        f"stage {name}: reward {{ from = first, {line} }}\n"
        for name, line in zip(("strong", "plain"), lines, strict=True)
    )
    made = plan(text)
    (strong,), (plain,) = jobs(made, "strong"), jobs(made, "plain")
    assert isinstance(strong.objective, Reward)
    assert (strong.objective.margin, strong.objective.center) == ("scale", 0.01)
    assert plain.objective.model_dump() == {"name": "reward", "layout": "joint"}
    data = {job.key: job for job in made.jobs if job.kind == "dataset"}
    assert data[strong.inputs["data:pairs"]].margins
    assert not data[plain.inputs["data:pairs"]].margins


@pytest.mark.parametrize("name", ["margin = scale", "center = 0.1"])
def test_a_ranking_has_neither_margins_nor_centers(name: str) -> None:
    text = "stage rm: reward { data = pairs, steps = 9, batch = 16 pairs, lr = 1e-6, "
    (found,) = check(f"{AFTER}{text}objective = plackett_luce, {name} }}\n")
    assert found.code == "E527"


def dpo(**attributes: str) -> str:
    given = {"data": "pairs", "steps": "9", "batch": "16 pairs", "lr": "1e-6", **attributes}
    lines = ", ".join(f"{name} = {value}" for name, value in given.items())
    return f"{AFTER}stage tuned: dpo {{ {lines} }}\n"


def test_ipo_is_in_the_objective_and_in_the_key() -> None:
    (ipo,), (plain,), (said,) = (
        jobs(plan(dpo(**given)), "tuned")
        for given in ({"objective": "ipo"}, {}, {"objective": "dpo"})
    )
    assert ipo.objective.model_dump()["objective"] == "ipo"
    assert "objective" not in plain.objective.model_dump()
    assert plain.key == said.key != ipo.key
    # The reference's log-probabilities are the same for both.
    assert ipo.inputs["reference:pairs"] == plain.inputs["reference:pairs"]


@pytest.mark.parametrize(
    ("given", "help"),
    [
        ({"beta": "30", "objective": "ipo"}, "write `beta = 0.1`"),
        ({"beta": "30", "objective": "ipo", "normalize": "true"}, "write `beta = 5`"),
    ],
)
def test_an_unusual_beta_of_ipo_is_warned_of(given: dict[str, str], help: str) -> None:
    (found,) = [d for d in check(dpo(**given)) if d.code == "W641"]
    assert found.help == help


def test_ipo_in_other_places_is_answered() -> None:
    helps = [d.help for d in check(dpo().replace(": dpo", ": ipo"))]
    assert "did you mean `dpo`?" in helps


@pytest.mark.parametrize("objective", LOSSES)
def test_only_a_loss_with_a_reference_has_a_job_for_it(objective: str) -> None:
    wrong = {"label_smoothing": "0.1"} if objective == "robust" else {}
    made = plan(dpo(objective=objective, **wrong))
    (job,) = jobs(made, "tuned")
    references = [each.id for each in made.jobs if isinstance(each, ReferenceJob)]
    shown = made.stages["tuned"].values
    if LOSSES[objective].reference:
        assert references == ["reference.tuned.pairs"]
        assert shown["reference"].value == "first"
    else:
        assert references == []
        assert "reference" not in shown
        assert [role for role in job.inputs if role.startswith("reference")] == []


@pytest.mark.parametrize(
    ("objective", "values"),
    [
        ("dpo", {"beta": 0.1, "nll": 0.0, "normalize": False}),
        ("simpo", {"beta": 2.0, "nll": 0.0, "normalize": True, "gamma": 1.0}),
        ("orpo", {"beta": 0.1, "nll": 1.0, "normalize": True}),
        ("cpo", {"beta": 0.1, "nll": 1.0, "normalize": False}),
    ],
)
def test_the_defaults_are_those_of_the_loss(objective: str, values: dict[str, object]) -> None:
    made = plan(dpo(objective=objective))
    (job,) = jobs(made, "tuned")
    found = job.objective.model_dump()
    assert {name: found.get(name) for name in values} == values
    assert "gamma" in values or "gamma" not in found
    shown = made.stages["tuned"].values["beta"]
    assert (float(shown.value), shown.origin) == (values["beta"], "etude")
    assert "length_penalty" not in found
    (given,) = jobs(plan(dpo(objective=objective, beta="0.7", nll="0.3")), "tuned")
    assert {"beta": 0.7, "nll": 0.3}.items() <= given.objective.model_dump().items()


def test_default_betas_are_usual_ones() -> None:
    for objective in LOSSES:
        assert [d for d in check(dpo(objective=objective)) if d.code == "W641"] == []
    (found,) = [d for d in check(dpo(objective="simpo", beta="30")) if d.code == "W641"]
    assert found.help == "write `beta = 2`"


@pytest.mark.parametrize(
    ("given", "message", "help"),
    [
        ({"gamma": "1"}, "`gamma` has no effect with `objective = dpo`", "`simpo`"),
        ({"objective": "simpo", "reference": "first"}, "`reference` has no effect", "`dpo` and"),
        ({"objective": "orpo", "normalize": "false"}, "`normalize` has no effect", "`cpo`"),
        ({"objective": "apo_zero", "label_smoothing": "0.1"}, "`label_smoothing` has", "`robust`"),
        ({"objective": "ipo", "length_penalty": "0.1"}, "`length_penalty` has no", "`dpo`"),
        ({"objective": "robust"}, "needs their share", "`label_smoothing = 0.1`"),
    ],
)
def test_attributes_of_another_loss_are_refused(
    given: dict[str, str], message: str, help: str
) -> None:
    (found,) = [d for d in check(dpo(**given)) if d.severity == "error"]
    assert found.code == "E527"
    assert message in found.message
    assert help in (found.help or "")
    name = "objective" if given == {"objective": "robust"} else list(given)[-1]
    assert found.span is not None
    assert found.span.text.startswith(name) or given[name] in found.span.text


def test_the_plan_knows_all_losses() -> None:
    assert get_args(Dpo.model_fields["objective"].annotation) == tuple(LOSSES)


def kto(**attributes: str) -> str:
    given = {"data": "rated", "steps": "9", "batch": "16 ratings", "lr": "1e-6", **attributes}
    lines = ", ".join(f"{name} = {value}" for name, value in given.items())
    return f"{AFTER}stage tuned: kto {{ {lines} }}\n"


def test_kto_learns_from_ratings_with_a_reference_of_its_own() -> None:
    made = plan(kto(desirable_weight="1.2", mask="formatting"))
    (job,) = jobs(made, "tuned")
    assert job.objective == Kto(
        beta=0.1, desirable_weight=1.2, undesirable_weight=1.0, mask="formatting"
    )
    by_key = {each.key: each for each in made.jobs}
    near, data = by_key[job.inputs["reference:rated"]], by_key[job.inputs["data:rated"]]
    assert isinstance(near, ReferenceJob)
    assert (near.form, near.mask) == ("ratings", "formatting")
    assert isinstance(data, DatasetJob)
    assert data.form == "ratings"
    assert made.stages["tuned"].values["batch"].value == "16 ratings"
    # What a reference of preferences is does not change with what ratings are.
    assert "form" not in jobs(plan(dpo()), "tuned")[0].model_dump()
    assert Plan.model_validate_json(made.to_json()) == made


@pytest.mark.parametrize(("epochs", "filled", "dropped"), [("1 epoch", 6, 6), ("2 epochs", 13, 12)])
def test_steps_of_epochs_of_ratings(epochs: str, filled: int, dropped: int) -> None:
    for more, expected in (({}, filled), ({"drop_last": "true"}, dropped)):
        text = kto(epochs=epochs, **more).replace("steps = 9, ", "")
        assert jobs(plan(text), "tuned")[0].steps == expected


def test_a_step_of_kto_takes_a_third_longer_than_one_of_dpo() -> None:
    """For the forward pass over the answers to other prompts."""
    gpus = 'cluster box { gpus = 1 of "H100 80GB" }\n'
    (of_kto,), (of_dpo,) = (jobs(plan(gpus + text), "tuned") for text in (kto(), dpo()))
    assert of_dpo.cost.seconds
    assert of_dpo.cost.mfu
    assert of_kto.cost.seconds == pytest.approx(of_dpo.cost.seconds * 4 / 3, rel=1e-3)
    assert of_kto.cost.mfu == pytest.approx(of_dpo.cost.mfu * 3 / 4, rel=1e-3)
    assert of_kto.cost.flops == of_dpo.cost.flops


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"data": "pairs"}, "E511"),
        ({"batch": "16 pairs"}, "E206"),
        ({"reference": "nowhere"}, "E402"),
        ({"beta": "0"}, "E208"),
        ({"desirable_weight": "0"}, "E208"),
        ({"gamma": "1"}, "E308"),
    ],
)
def test_what_is_wrong_with_a_kto_stage_is_said(given: dict[str, str], code: str) -> None:
    assert [d.code for d in check(kto(**given)) if d.severity == "error"] == [code]


def test_dpo_does_not_take_ratings() -> None:
    (found,) = [d for d in check(dpo(data="rated")) if d.severity == "error"]
    assert (found.code, found.message) == (
        "E511",
        "preferences are needed here, but `rated` has ratings",
    )


TEACHER = (
    "model large { layers = 3, dim = 128, heads = 4, kv_heads = 2, ffn = 256, vocab = 320 }\n"
    "stage big: train { model = large, steps = 5, seq_len = 16, batch = 4 seqs, lr = 1e-3, "
    "data = web }\n"
)


def distill(**attributes: str) -> str:
    given = {"from": "first", "teacher": "big", "data": "talk", "steps": "9", "lr": "1e-5"}
    lines = ", ".join(f"{name} = {value}" for name, value in {**given, **attributes}.items())
    return f"{AFTER}{TEACHER}stage tuned: distill {{ {lines} }}\n"


def test_a_teacher_says_once_what_a_student_learns() -> None:
    made = plan(distill(top_k="8", temperature="2", loss="all"))
    (job,) = jobs(made, "tuned")
    assert job.objective == Distill(temperature=2.0, top_k=8, loss_on="all")
    by_key = {each.key: each for each in made.jobs}
    said = by_key[job.inputs["teacher:talk"]]
    assert isinstance(said, TeacherJob)
    assert (said.id, said.top_k, said.temperature) == ("teacher.tuned.talk", 8, 2.0)
    assert (said.model.layers, said.vocab, said.every_token) == (3, 300, True)
    assert said.inputs["model"] == jobs(made, "big")[-1].key
    assert said.inputs["data:talk"] == job.inputs["data:talk"]
    # The loss is the student's: what the teacher says of tokens does not depend on it.
    other = plan(distill(top_k="8", temperature="2", loss="all", divergence="jsd"))
    assert jobs(other, "tuned")[0].inputs == job.inputs
    assert jobs(other, "tuned")[0].key != job.key


def test_a_teacher_with_another_placement_reads_whole_rows() -> None:
    cluster = 'cluster box { gpus = 8 of "H100 80GB" }\n'
    text = distill(parallel="{ shard 8 }", batch="8 seqs").replace(
        "stage big: train {", "stage big: train { parallel = { tensor 2 },"
    )
    text = cluster + text.replace("batch = 4 seqs", "batch = 8 seqs")
    made = plan(text)
    (said,) = (each for each in made.jobs if isinstance(each, TeacherJob))
    assert (said.resources.tensor, said.resources.shard) == (1, 8)
    assert said.reading is not None


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ({"teacher": "nowhere"}, "E402", "nowhere"),
        ({"top_k": "301"}, "E528", "there are only 300 tokens"),
        ({"temperature": "0"}, "E208", ""),
        ({"data": "pairs"}, "E511", "dialogs are needed here"),
        ({"divergence": "kl"}, "E202", "forward_kl"),
    ],
)
def test_what_is_wrong_with_distillation_is_said(
    given: dict[str, str], code: str, message: str
) -> None:
    (found,) = [d for d in check(distill(**given)) if d.severity == "error"]
    assert found.code == code
    assert message in found.message


def test_a_teacher_has_the_tokenizer_of_its_student() -> None:
    text = distill().replace("stage big: train {", "stage big: train { tokenizer = other,")
    text = text.replace("stage first: train {", "stage first: train { tokenizer = own,")
    text += "tokenizer own { bytes }\ntokenizer other { train = { on [web], vocab 300 } }\n"
    (found,) = [d for d in check(text) if d.severity == "error"]
    assert (found.code, found.span and found.span.text) == ("E411", "big")
    assert "the teacher `big` has a different tokenizer" in found.message
    assert "`sample` stage" in (found.help or "")


def test_rows_longer_than_a_teacher_knows_are_warned_of() -> None:
    text = distill(seq_len="64", batch="4 seqs")
    found = [d for d in check(text) if d.code == "W609"]
    assert any("the teacher was trained on sequences of 16" in each.message for each in found)
    (said,) = (each for each in plan(text).jobs if isinstance(each, TeacherJob))
    assert (said.model.context, said.seq_len) == (64, 64)
    assert said.torchtitan["training"]["seq_len"] == 64


def test_distillation_has_no_tensor_parallelism() -> None:
    cluster = 'cluster box { gpus = 2 of "H100 80GB" }\n'
    text = cluster + distill(parallel="{ tensor 2 }")
    (found,) = [d for d in check(text) if d.severity == "error"]
    assert found.code == "E519"
    assert "all tokens are compared at each place" in (found.help or "")


def test_a_miniature_keeps_what_a_stage_learns_from() -> None:
    """A small vocabulary may have fewer tokens than are kept of a large one."""
    text = distill(top_k="200").replace("vocab = 300", "vocab = 32000")
    (student,) = jobs(miniature(text), "tuned")
    assert isinstance(student.objective, Distill)
    assert student.objective.top_k == 16
    assert [role for role in student.inputs if role.startswith("teacher:")] == ["teacher:talk"]
    (rated,) = jobs(miniature(kto()), "tuned")
    assert isinstance(rated.objective, Kto)
    assert "reference:rated" in rated.inputs
