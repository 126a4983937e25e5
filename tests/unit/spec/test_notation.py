"""What is said of the notation of other languages: one error, with how it is written."""

from typing import Any

import pytest
from specs import HEAD, check, only, stage


def errors(attribute: str) -> list:
    name = attribute.split()[0].rstrip(":").strip('"')
    left_out: dict[str, Any] = {name: None}
    return check(HEAD + stage(body=attribute, **left_out))


@pytest.mark.parametrize(
    ("attribute", "code", "help"),
    [
        ("checkpoint = every 1000 steps", "E323", "`checkpoint every 1000 steps`"),
        ("drop similar = 90%", "E323", "`drop similar > 90%`"),
        ("keep = 10% where quality.loss > 4", "E323", "`keep 10% where"),
        ("checkpoint: every 5 steps", "E323", "`checkpoint every 5 steps`"),
        ("checkpoint every = 5 steps", "E323", "`checkpoint every 5 steps`"),
        ("gate = needle >= 90%", "E323", "`gate seq_len { require needle >= 90% }`"),
        ("otherwise = extend 9 steps at most 2 times", "E323", "`otherwise extend 9 steps at most"),
        ("average = every 10 steps", "E323", "`average = polyak every 10 steps`"),
        ('allow = W601 "x"', "E323", '`allow W601 "the reason"`'),
        ("lr = cosine(1e-3)", "E107", "`1e-3 -> 0 cosine`"),
        ("lr = 0 to 1e-3", "E107", "`0 -> 1e-3`"),
        ("lr = 3*1e-4", "E107", "`0.0003`"),
        ("steps = 1,000", "E107", "`1000` or `1_000`"),
        ("lr: 3e-4", "E107", "`lr = 3e-4`"),
        ("lr = 3e-4;", "E107", "ends with its line"),
        ("lr = 3e-4 // peak", "E107", "begin with `#`"),
        ("parallel = { tensor = 1 }", "E212", "`tensor 1`"),
        ("optimizer = adamw { betas = (0.9, 0.95) }", "E107", "`[0.9, 0.95]`"),
        ("batch = 4 Ki tokens", "E107", "`4Ki`"),
        ("lr = 2 ** 3", "E107", "write the result: `8`"),
        ("lr = 1e-3 - 5e-4", "E107", "`0.0005`"),
        ("lr = 3e-4 / 0", "E107", "write the result"),
        ("reward = right + tidy", "E107", "`{ right 1, tidy 1 }`"),
        ("clip = -1", "E108", "remove `clip`"),
        ("optimizer = adamw { betas = [-0.9, 0.95] }", "E108", "remove `betas`"),
        ("lr = 1e-3 cosine", "E109", "`1e-3 -> 0 cosine`"),
        ("lr = 1e-3 -> 4e-5 rsqrt", "E109", "`half_cosine`"),
        (
            "evaluate every 50 steps { loss = [web] }",
            "E323",
            "`evaluate = { every = 50 steps, loss = [DATASET] }`",
        ),
        (
            "evaluate every 50 steps",
            "E323",
            "`evaluate = { every = 50 steps, loss = [DATASET] }`",
        ),
        ("stop when loss(web) does not improve for 4", "E323", "`patience = 4` in `evaluate"),
        ("clip = None", "E201", "to switch it off, write 1e9"),
    ],
)
def test_each_has_its_own_answer(attribute: str, code: str, help: str) -> None:
    found = only(errors(attribute))
    assert found.code == code
    assert help in found.help


@pytest.mark.parametrize("path", ["data/web.jsonl", "~/x.jsonl", "./x.jsonl", "s3://b/x.jsonl"])
def test_paths_and_addresses_are_texts(path: str) -> None:
    found = only(check(HEAD + f"dataset more {{ files = {path} }}\n" + stage()))
    assert (found.code, found.help) == ("E107", f'write `"{path}"`')


@pytest.mark.parametrize(
    ("written", "name"),
    [("gpt-oss", "gpt_oss"), ("Llama-3.1", "llama_3_1"), ("qwen2.5", "qwen2_5")],
)
def test_a_name_with_a_dash_is_told_in_both_spellings(written: str, name: str) -> None:
    found = only(check(HEAD + f"model other {{ family = {written} }}\n" + stage()))
    assert (found.code, found.help) == ("E107", f'write `{name}`, or `"{written}"`')
    found = only(check(HEAD + f'model other {{ family = "{written}" }}\n' + stage()))
    assert (found.code, f"write `{name}`: names have" in found.help) == ("E201", True)


@pytest.mark.parametrize(
    ("attribute", "code"),
    [("lr = 1e-3 5", "E101"), ("lr = 1e-3 5 1e-5", "E101"), ("lr = 4e-3 )", "E106")],
)
def test_an_exponent_is_no_difference(attribute: str, code: str) -> None:
    assert only(errors(attribute)).code == code


def test_what_a_text_holds_is_no_notation() -> None:
    dataset = 'dataset more { files = "sft/*.jsonl", kind ;= dialogs }\n'
    found = only(check(HEAD + dataset + stage()))
    assert (found.code, found.message) == ("E107", "`;` is not a separator")


def test_a_text_without_its_first_quote_is_no_notation() -> None:
    found = check(HEAD + 'dataset more { sample = arithmetic\n  cite OLMo-2.csv" }\n' + stage())
    assert "E108" not in [each.code for each in found]


def test_the_answer_hides_no_other_error() -> None:
    found = check(HEAD + stage(body="checkpoint = every 5 steps\nclip = -1", seq_len="2 setps"))
    assert sorted(each.code for each in found) == ["E108", "E204", "E323"]
