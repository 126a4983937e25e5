"""`let`: wherever a value stands, its name may stand; what is wrong with it is shown at both."""

import pytest
from specs import HEAD, after, check, codes, only, place, plan, stage

LETS = """
let brief  = 20 steps
let half   = 50%
let rest   = half
let few    = 3
let some   = 2 steps
let limit  = 90%
let bound  = 4.0
let sites  = "blocked.txt"
let nodes  = 4
let card   = "H100 80GB"
let budget = 6400
let near   = 1%
let where_from = "Table 3"
let length = 16
let size   = 300
let before = first
let ranks  = 2
"""
SCORED = """stage quality: score { from = base, data = [web] }
stage base: train { model = tiny, steps = 10, seq_len = 16, batch = 4 seqs, lr = 1e-3, data = math }
"""


def train(**attributes: str) -> str:
    return HEAD + stage(**attributes)


@pytest.mark.parametrize(
    ("named", "written"),
    [
        (train(lr="0 -> 1e-3 for brief then 1e-3"), train(lr="0 -> 1e-3 for 20 steps then 1e-3")),
        (train(lr="1e-3 until half then 1e-4"), train(lr="1e-3 until 50% then 1e-4")),
        (
            train(lr="1e-3 -> 1e-4 over brief until half then 1e-5"),
            train(lr="1e-3 -> 1e-4 over 20 steps until 50% then 1e-5"),
        ),
        (train(data="{ web half, math rest }"), train(data="{ web 50%, math 50% }")),
        (train(tokens="budget"), train(tokens="6400")),
        (train(seq_len="length for brief then 32"), train(seq_len="16 for 20 steps then 32")),
        (train(parallel="{ micro_batch ranks }"), train(parallel="{ micro_batch 2 }")),
        (
            train(average="polyak every some over half"),
            train(average="polyak every 2 steps over 50%"),
        ),
        (train(checkpoint="brief"), train(checkpoint="20 steps")),
        (
            HEAD + stage(body="checkpoint every brief"),
            HEAD + stage(body="checkpoint every 20 steps"),
        ),
        (
            train() + "expect { first.tokens = budget within near cite where_from }",
            train() + 'expect { first.tokens = 6400 within 1% cite "Table 3" }',
        ),
        (
            train()
            + after(
                body="gate seq_len { require needle >= limit\notherwise extend brief at most few }"
            ),
            train()
            + after(
                body="gate seq_len { require needle >= 90%\n"
                "otherwise extend 20 steps at most 3 times }"
            ),
        ),
        (
            train() + "dataset ranked { sample = python_functions, kind = preferences }\n"
            "rounds align ranks { stage rm: reward { from = before, data = ranked[1..ranks]\n"
            "steps = 5, lr = 1e-4, batch = 4 pairs\ndrop similar > limit } }",
            train() + "dataset ranked { sample = python_functions, kind = preferences }\n"
            "rounds align 2 { stage rm: reward { from = first, data = ranked[1..2]\n"
            "steps = 5, lr = 1e-4, batch = 4 pairs\ndrop similar > 90% } }",
        ),
        (
            train() + "tokenizer words { train = { on [web], vocab size } }",
            train() + "tokenizer words { train = { on [web], vocab 300 } }",
        ),
        (
            HEAD.replace(
                "{ sample = python_docs }",
                "{ sample = python_docs\nkeep half where quality.loss > bound }",
            )
            + stage()
            + SCORED,
            HEAD.replace(
                "{ sample = python_docs }",
                "{ sample = python_docs\nkeep 50% where quality.loss > 4.0 }",
            )
            + stage()
            + SCORED,
        ),
        (
            HEAD.replace(
                "{ sample = python_docs }", '{ files = "a.jsonl"\ndrop where url in sites }'
            )
            + stage(),
            HEAD.replace(
                "{ sample = python_docs }", '{ files = "a.jsonl"\ndrop where url in "blocked.txt" }'
            )
            + stage(),
        ),
        (
            train(batch="8 seqs") + "cluster big { nodes = ranks, gpus = nodes of card }",
            train(batch="8 seqs") + 'cluster big { nodes = 2, gpus = 4 of "H100 80GB" }',
        ),
        (
            train() + after(optimizer="adamw { weight_decay = decay }") + "let decay = 0.2\n",
            train() + after(optimizer="adamw { weight_decay = 0.2 }"),
        ),
    ],
)
def test_a_let_stands_wherever_a_value_may(named: str, written: str) -> None:
    assert plan(named + LETS) == plan(written)


@pytest.mark.parametrize(
    ("let", "stage_", "words"),
    [
        ('"soon"', stage(lr="1e-3 for ¦warm then 1e-4"), "must be a number"),
        ("100", stage(lr="1e-3 for ¦warm then 1e-4"), "`100` needs a unit"),
        ("100 seqs", stage(lr="1e-3 until ¦warm then 1e-4"), "is in seqs"),
        ("[1, 2]", stage(data="{ web ¦warm, math 50% }"), "not a name and a share"),
        ("2 tokens", stage(data="{ web ¦warm, math 50% }"), "is in tokens"),
        ("1.5", stage(steps="¦warm"), "not a whole number"),
        ("{ web 50% }", stage(data="¦warm"), "add up to 50%"),
        ("1e-3 for 5 steps then 1e-4", stage(z_loss="¦warm"), "not a schedule"),
        ("polyak every 2 steps", stage(lr="¦warm"), "a value or a schedule"),
        ("0", stage(body="checkpoint every ¦warm"), "at least 1"),
        ("3 steps", stage(body="gate seq_len { require needle >= ¦warm }"), "is in steps"),
    ],
)
def test_a_value_of_the_wrong_kind_is_shown_with_its_let(let: str, stage_: str, words: str) -> None:
    head, _, rest = stage_.partition("¦")
    found = only(check(f"let warm = {let}\n" + HEAD + head + rest))
    assert words in found.message
    before = f"let warm = {let}\n" + HEAD + head
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    assert place(found) == (line, column) or found.code == "E212"
    notes = [(span.line, span.column, text) for span, text in found.notes]
    assert notes == [(1, 5, "`warm` is given here")] or found.code == "E212"


@pytest.mark.parametrize("text", ["for warn then 1e-4", "until warn then 1e-4"])
def test_a_mistyped_let_is_suggested(text: str) -> None:
    found = only(check("let warm = 5 steps\n" + HEAD + stage(lr=f"1e-3 {text}")))
    assert (found.code, found.help) == ("E201", "did you mean `warm`?")
    found = only(check("let peak = 1e-3\n" + HEAD + stage(lr="peek")))
    assert (found.code, found.help) == ("E201", "did you mean `peak`?")


def test_a_name_where_a_number_stands_is_an_error_without_lets_too() -> None:
    assert codes(HEAD + stage(lr="1e-3 for warm then 1e-4")) == ["E201"]
    assert codes(HEAD + stage(data="{ web half, math 50% }")) == ["E201"]
    assert codes(HEAD + stage(average="polyak every now over then_")) == ["E201", "E201"]
    assert codes(HEAD + stage() + "expect { parameters = many }") == ["E201"]
