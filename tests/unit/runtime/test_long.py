"""Records of more tokens than a row has: refused with what to write, dropped or cut off."""

import json

import numpy as np
import pytest
from preparing import job, lines, make, tokenized
from specs import HEAD, POST_TRAINING, compiled, plan, stage
from test_dialog import say

from etude.cli.common import too_long
from etude.runtime.data.dialogs.encode import CONTENT, OTHER, TERMINATION
from etude.runtime.data.order.long import Long, TooLong, counted, left_out
from etude.runtime.data.records.shards import Record, Records
from etude.runtime.errors import DataError


@pytest.fixture
def inputs(tmp_path):
    return tokenized(tmp_path)


PARTS = {"o": OTHER, "c": CONTENT, "t": TERMINATION}


def record(text: str, parts: str, *branches: int) -> Record:
    codes = np.array([PARTS[part] for part in parts], np.uint8)
    return Record(np.array(list(text.encode()), np.int64), codes, branches)


def fit(given: Record, limit: int, policy: str = "truncate", **settings):
    long = Long(limit, policy, **settings)
    made = long.fit(given)
    assert long.counts
    counts = (long.counts.dropped, long.counts.truncated)
    text = None if made is None else bytes(made.tokens.tolist()).decode()
    return text, tuple(list(made.branches) if made else []), counts


DIALOG = record("ask.good.", "oooocccct")
PAIR = record("ask.goodness.goofy.", "oooo" + "cccccccct" + "ccccct", 4, 9, 6)


def test_what_fits_is_kept_and_not_counted():
    assert fit(DIALOG, 9) == ("ask.good.", (), (0, 0))
    assert Long(None, "refuse").fit(DIALOG) is DIALOG


def test_what_is_refused_says_its_length_and_what_to_write():
    with pytest.raises(TooLong) as error:
        Long(7, "refuse").fit(DIALOG)
    assert error.value.message == "the dialog takes 9 tokens, 2 more than the 7 allowed"
    assert "`long = drop` or `long = truncate`" in error.value.help
    assert "raise `seq_len` of the stages that read it to 9 or more" in error.value.help
    with pytest.raises(TooLong, match="the prompt with all responses takes 19 tokens, 2 more"):
        Long(17, "refuse").fit(PAIR)


def test_dropped_records_are_counted():
    assert fit(DIALOG, 8, "drop") == (None, (), (1, 0))
    assert fit(PAIR, 18, "drop") == (None, (), (1, 0))


def test_a_dialog_keeps_its_first_tokens_as_long_as_one_is_learned():
    assert fit(DIALOG, 5) == ("ask.g", (), (0, 1))
    assert fit(DIALOG, 4) == (None, (), (1, 0))
    assert fit(DIALOG, 4, every_token=True) == ("ask.", (), (0, 1))
    assert fit(DIALOG, 1, every_token=True) == (None, (), (1, 0))


def test_a_preference_keeps_its_prompt_and_the_same_length_of_all_responses():
    assert fit(PAIR, 18) == ("ask.goodnessgoofy.", (4, 8, 6), (0, 1))
    assert fit(PAIR, 15) == ("ask.goodngoofy", (4, 5, 5), (0, 1))
    three = record("ask.a.bbb.cccccc.", "oooo" + "ct" + "ccct" + "cccccct", 4, 2, 4, 7)
    assert fit(three, 13) == ("ask.a.bbbccc", (4, 2, 3, 3), (0, 1))


@pytest.mark.parametrize("limit", range(1, 19))
def test_a_cut_preference_never_has_equal_or_empty_responses(limit):
    text, branches, counts = fit(PAIR, limit)
    if text is None:
        # "goo" is what both begin with.
        assert limit < 12
        assert counts == (1, 0)
    else:
        assert limit >= 12
        assert sum(branches) == len(text) <= limit
        assert counts == (0, 1)
        assert branches[0] == 4
        assert text[4:][: branches[1]] != text[4:][branches[1] :]


CHAT = [{"messages": say("user: q") + say(f"assistant: {'a' * n}")} for n in (1, 90, 2)]


def test_the_counts_are_in_the_events_and_in_the_summary(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", *CHAT, {"messages": []})
    for policy, dropped, truncated in (("drop", 1, 0), ("truncate", 0, 1)):
        settings = {"longest": 40, "bad_lines": 1, "long": policy}
        result, events = make(job(**settings), inputs, tmp_path)
        long = {"limit": 40, "dropped": dropped, "truncated": truncated}
        about = {"job": "dataset.d", "dataset": "d"}
        assert [e for e in events if e["event"] == "long"] == [{"event": "long", **about, **long}]
        assert counted(result) == {"bad_lines": 1, "long": long}
        assert json.loads((result / "records.json").read_text())["documents"] == 3 - dropped
        lengths = Records(result, "train").lengths.tolist()
        assert max(lengths) == 40 if truncated else max(lengths) < 40


def test_a_long_record_that_is_refused_is_a_bad_line_with_a_way_out(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", *CHAT)
    with pytest.raises(DataError, match=r"d.jsonl:2: the dialog takes \d+ tokens") as error:
        make(job(longest=40), inputs, tmp_path)
    assert "`long = drop`" in error.value.help
    assert "`bad_lines = 1`" in error.value.help
    result, events = make(job(longest=40, bad_lines=1), inputs, tmp_path)
    assert [e["event"] for e in events] == ["bad_line", "dataset"]
    assert counted(result) == {"bad_lines": 1}
    assert left_out(counted(result))


def test_prompts_are_dropped(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", {"prompt": say("user: q")}, {"prompt": say("user: " + "q" * 90)})
    result, events = make(job("prompts", longest=40, long="drop"), inputs, tmp_path)
    assert len((result / "prompts.jsonl").read_text().splitlines()) == 1
    assert counted(result)["long"] == {"limit": 40, "dropped": 1, "truncated": 0}
    assert events[0]["event"] == "long"
    with pytest.raises(DataError, match="the prompt takes") as error:
        make(job("prompts", longest=40), inputs, tmp_path)
    assert "truncate" not in error.value.help


def test_where_all_are_dropped_the_message_says_so(inputs, tmp_path):
    lines(tmp_path / "d.jsonl", CHAT[1])
    with pytest.raises(DataError, match="no dialogs of at most 40 tokens: all 1 are dropped"):
        make(job(longest=40, long="drop"), inputs, tmp_path)


def test_in_words():
    assert too_long({"limit": 4096, "dropped": 1, "truncated": 0}) == (
        "1 record dropped: more than 4,096 tokens"
    )
    assert too_long({"limit": 8, "dropped": 1200, "truncated": 2}) == (
        "1,200 records dropped and 2 records truncated: more than 8 tokens"
    )


def test_the_plan_says_what_becomes_of_long_records():
    text = POST_TRAINING
    for kind, policy in (("dialogs", "truncate"), ("prompts", "drop")):
        old = f"kind = {kind}"
        assert old in text
        text = text.replace(old, f"{old}, long = {policy}")
    jobs = {j.id: j for j in plan(text).jobs if j.kind == "dataset"}
    assert jobs["dataset.human"].long == "truncate"
    assert jobs["dataset.asked[1]"].long == "drop"
    contexts = [j.model.context for j in plan(text).jobs if j.kind == "export"]
    assert jobs["dataset.asked[1]"].longest == min(contexts) - 1
    # Nobody can shorten what the recipe's own stages draw.
    assert jobs["dataset.align.1.drafts"].long == "drop"
    plain = {j.id: j for j in plan(POST_TRAINING).jobs if j.kind == "dataset"}
    assert plain["dataset.human"].long == "refuse"


def test_documents_are_never_long():
    for said in ('files = "a.jsonl", long = drop', 'hub = "a/b", kind = prompts, long = truncate'):
        _, report = compiled(HEAD + stage() + f"dataset a {{ {said} }}\n")
        found = [d for d in report.ordered() if d.severity == "error"]
        assert [d.code for d in found] == ["E535"]
        assert found[0].span
        assert found[0].help
