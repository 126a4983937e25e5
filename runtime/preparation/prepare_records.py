"""Dataset jobs of dialogs, preferences, ratings, solutions and prompts."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...compiler.as_written import counted
from ...compiler.plan.plan import DatasetJob
from .. import stopping
from ..data.dialogs.dialog import renderer
from ..data.dialogs.encode import Rendered
from ..data.order.long import PROMPTS as SUMMARY
from ..data.order.long import Long, equal_responses, teaches
from ..data.reading import readers
from ..data.reading.bad_lines import BadLines
from ..data.reading.formats import Row
from ..data.records import layouts, records
from ..data.records.answers import right_answers
from ..data.records.fields import Fields
from ..data.records.shards import Record, Records, write_records
from ..data.records.similar import unlike
from ..data.records.tokens import Tokens, require_text
from ..disk import write
from ..errors import DataError
from ..run_folder.recorder import OnEvent
from ..verification import misfit

PROMPTS = "prompts.jsonl"


class RecordMaker:
    """Reads, checks and renders the records of one job.

    A faulty record is a bad line, counted against the job's `bad_lines`. So is a record that is too
    long, unless the job drops or truncates such records.

    Args:
        made: the tokenizer; None for prompts that need no check.
        bad: counts bad lines in place of the job's budget.

    Raises: DataError: the dialog's protocol and the tokenizer are incompatible.
    """

    def __init__(
        self,
        job: DatasetJob,
        inputs: Mapping[str, Path],
        made: Tokenizer | None,
        root: Path,
        on_event: OnEvent,
        bad: BadLines | None = None,
    ) -> None:
        self._job = job
        self._root = root
        self._emit = on_event
        self._results = _in_order(inputs)
        # Samples and jobs use the default field names.
        named = job.source["kind"] in ("files", "hub")
        names = dict(job.source.get("fields") or {}) if named else {}
        ignored = names.pop("ignore", None) or ()
        self._fields = Fields(names, ignored)
        self._named = bool(ignored) or any(k != v or k == "role" for k, v in names.items())
        self._tokens = None
        self._vocab = 0
        if made is not None:
            rendered = renderer(job.dialog, made, root) if job.dialog else None
            self._tokens = Tokens(made, rendered)
            require_text(job.separator or "", made)
            self._vocab = max(made.get_vocab(with_added_tokens=True).values()) + 1
        # No one can fix records in what a stage has drawn.
        allowed = None if job.source["kind"] == "job" else job.bad_lines
        self._bad_lines = bad or BadLines(allowed, self._bad)
        self._long = Long(job.longest, job.long, every_token=job.every_token)
        self._layouts: dict[str, int] = {}
        self._similar = {"limit": job.drop_similar, "responses": 0, "records": 0}

    def write(self, result: Path) -> dict[str, Any]:
        """Writes the data set and returns a summary with `documents` and `tokens`."""
        if self._job.form == "prompts":
            return self._write_prompts(result)
        summary = write_records(
            self._records(),
            result,
            form=self._job.form,
            vocab=self._vocab,
            holdout=Fraction(self._job.holdout),
            seed=self._job.seed,
            name=self._job.name,
            extra=self.counted,
        )
        if self._job.form == "ratings":
            self._require_both(Records(result, "train").good)
        if self._job.form == "solutions":
            self._require_both(Records(result, "train").step_labels())
        self._report()
        return summary

    def counted(self) -> dict[str, Any]:
        """The summary's counts besides the records read so far."""
        similar = {} if self._job.drop_similar is None else {"similar": self._similar}
        return {"bad_lines": self._bad_lines.count, **self._long.summary(), **similar}

    def warnings(self) -> list[str]:
        """Likely problems with the records so far, one sentence each."""
        return self._tokens.warnings() if self._tokens else []

    def notes(self) -> list[str]:
        """What was recognized in the records so far, one sentence each."""
        return [
            f"{counted(count, 'records')} read in the layout of {layout}"
            for layout, count in self._layouts.items()
        ]

    def _report(self) -> None:
        about = {"job": self._job.id, "dataset": self._job.name}
        for warning in self.warnings():
            message = f"the data set `{self._job.name}`: {warning}"
            self._emit({"event": "warning", "message": message})
        if self._job.drop_similar is not None:
            self._emit({"event": "similar", **about, **self._similar})
        counts = self._long.counts
        if counts and (counts.dropped or counts.truncated):
            self._emit({"event": "long", **about, **asdict(counts)})

    def _write_prompts(self, result: Path) -> dict[str, Any]:
        count = 0
        with (result / PROMPTS).open("w", encoding="utf-8") as file:
            for row, made in self.prompts():
                if made is not None:
                    file.write(records.dump({**made.normalized(), "place": row.place}))
                    count += 1
        if not count:
            raise DataError(f"the data set `{self._job.name}` has no prompts", "add at least one")
        summary = {"form": "prompts", "documents": count, **self.counted()}
        write(result / SUMMARY, json.dumps(summary, indent=1) + "\n")
        self._report()
        return {"documents": count, "tokens": 0}

    @property
    def fields(self) -> records.Fields:
        """The source's names for its fields."""
        return self._fields

    def known(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of a record; those of a well-known layout converted, unless the data set
        names its fields.

        Raises: DataError: the layout is known, and the record cannot be used.
        """
        found = self._layout(fields)
        return found.record if found else fields

    def made(self) -> Iterator[tuple[Row, Record | None]]:
        """Each row's dialog, preference, rating or solution, None if it is left out on purpose."""
        made = {
            "dialogs": self._dialog,
            "preferences": self._preference,
            "ratings": self._rating,
            "solutions": self._solution,
        }
        return self._parsed(made[self._job.form])

    def labels(self) -> None:
        """Reads ratings until there is a good answer and a bad one, or solutions until there is a
        right step and a wrong one.

        Raises: DataError: all are the same.
        """
        found: set[bool] = set()
        form = self._job.form
        for row in readers.read_rows(self._job.source, form, BadLines(None), root=self._root):
            with suppress(DataError):
                found |= self._labels(self.known(row.fields))
            if len(found) == 2:
                return
        if found:
            self._require_both(found)

    def _require_both(self, good: Iterable[bool]) -> None:
        """Raises: DataError: all labels are the same."""
        found = {bool(each) for each in good}
        if len(found) != 1:
            return
        steps = self._job.form == "solutions"
        what, needed = ("steps", "right and wrong") if steps else ("answers", "good and bad")
        raise DataError(
            f"all {what} of the data set `{self._job.name}` have the label "
            f"{str(*found).lower()}: a stage that learns from {self._job.form} needs {needed} "
            f"{what}",
            f"name the files of both in one data set; where all {what} are {needed.split()[0]}, "
            "`sft` learns them",
        )

    def _labels(self, fields: dict[str, Any]) -> set[bool]:
        if self._job.form == "ratings":
            return {records.label(fields, self._fields)}
        steps = records.steps_of(fields, self._fields)
        return {*records.step_labels(fields, self._fields, len(steps))}

    def asked(self, prompt: records.Prompt) -> Rendered | None:
        """A prompt as a model receives it; None if the job has no tokenizer or no protocol for it.

        Raises: DataError: it cannot be rendered.
        """
        checked = self._tokens and (self._job.dialog or isinstance(prompt.text, str))
        return self._tokens.asked(prompt) if self._tokens and checked else None

    def prompts(self) -> Iterator[tuple[Row, records.Prompt | None]]:
        """Each row's prompt, None if it is left out on purpose."""
        return self._parsed(self._prompt)

    def _records(self) -> Iterator[Record]:
        kept = 0
        for _, record in self.made():
            if record is not None:
                kept += 1
                yield record
        if not kept:
            raise self._nothing_left()

    def _parsed(self, make: Any) -> Iterator[tuple[Row, Any]]:
        """The result for each row that is not a bad line.

        Raises: DataError: more lines are bad than allowed; all records are too long.
        """
        kept = 0
        bad, source = self._bad_lines, self._job.source
        for row in readers.read_rows(
            source, self._job.form, bad, root=self._root, results=self._results
        ):
            stopping.check(f"`{self._job.id}` starts over")
            try:
                made = make(row.fields)
            except DataError as problem:
                bad.report(row.place, problem.message, problem.help)
            else:
                kept += made is not None
                yield row, made
        counts = self._long.counts
        if counts and counts.dropped and not kept:
            raise DataError(
                f"the data set `{self._job.name}` has no {self._job.form} of at most "
                f"{counts.limit:,} tokens: all {counts.dropped:,} are dropped as too long",
                "raise `seq_len` of the stages that read it, or use shorter ones",
            )

    def _nothing_left(self) -> DataError:
        """The error when there is no record to write."""
        if similar := self._similar["records"]:
            return DataError(
                f"the data set `{self._job.name}` has no preferences: every record's "
                f"responses are too similar ({similar:,} dropped)",
                "raise the percentage of `drop similar`, or use responses that differ more",
            )
        if self._job.source.get("kind") == "job" and self._job.form == "preferences":
            stage = self._job.name.removesuffix(".pairs")
            return DataError(
                f"there are no preferences in `{self._job.name}`: no prompt has two answers that "
                "ended before `max_tokens` and differ in text and reward",
                f"raise `max_tokens`, `draws` or `temperature` of `{stage}`, train its model for "
                f"longer, or leave `{self._job.name}` out of `data`",
            )
        return self._bad_lines.nothing_left(self._job.name, self._job.form)

    def _bad(self, message: str) -> None:
        about = {"job": self._job.id, "dataset": self._job.name}
        self._emit({"event": "bad_line", **about, "message": message})

    def _dialog(self, fields: dict[str, Any]) -> Record | None:
        """None if it is dropped as too long."""
        assert self._tokens
        record = self._tokens.dialog(records.dialog(self._counted(fields), self._fields))
        self._require_taught(record)
        return self._long.fit(record)

    def _preference(self, fields: dict[str, Any]) -> Record | None:
        """None if its responses are too similar, or it is dropped as too long."""
        assert self._tokens
        found = records.preference(self._counted(fields), self._fields, margins=self._job.margins)
        if self._job.drop_similar is not None:
            kept = unlike(found.texts(), self._job.drop_similar)
            self._similar["responses"] += len(found.responses) - len(kept)
            if len(kept) < 2:
                self._similar["records"] += 1
                return None
            found = found.only(kept)
        record = self._tokens.preference(found)
        if same := equal_responses(record):
            one, other = (found.names[number] for number in same)
            raise records.equal(one, other, " once they are rendered")
        self._require_taught(record)
        return self._long.fit(record)

    def _rating(self, fields: dict[str, Any]) -> Record | None:
        """None if it is dropped as too long."""
        assert self._tokens
        record = self._tokens.rating(records.rating(self._counted(fields), self._fields))
        self._require_taught(record)
        return self._long.fit(record)

    def _solution(self, fields: dict[str, Any]) -> Record | None:
        """None if it is dropped as too long."""
        assert self._tokens
        assert self._job.separator
        separator = self._job.separator
        found = records.solution(self._counted(fields), self._fields, separator)
        return self._long.fit(self._tokens.solution(found, separator))

    def _counted(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same as `known`, and counts the layout.

        Raises: DataError: the layout is known, and the record cannot be used.
        """
        found = self._layout(fields)
        if found is None:
            return fields
        self._layouts[found.layout] = self._layouts.get(found.layout, 0) + 1
        return found.record

    def _layout(self, fields: dict[str, Any]) -> layouts.Converted | None:
        return None if self._named else layouts.converted(fields, self._job.form)

    def _require_taught(self, record: Record) -> None:
        """Raises: DataError: nothing in the record is learned."""
        if teaches(record, every_token=self._job.every_token):
            return
        if record.branches:
            raise DataError("a response has nothing that the assistant says")
        raise DataError(
            "the dialog has nothing to learn: the assistant says nothing in it, or all its "
            "messages are marked as not learned"
        )

    def _prompt(self, fields: dict[str, Any]) -> records.Prompt | None:
        """None if it is dropped as too long."""
        found = records.prompt(fields, self._fields)
        if self._job.answers:
            found = replace(found, answer=self._answers(fields))
        asked = self.asked(found)
        if asked is not None and not self._long.fits(len(asked), "the prompt", cut=False):
            return None
        return found

    def _answers(self, fields: dict[str, Any]) -> list[str]:
        """The right answers to a prompt, which verifiers of the job need.

        Raises: DataError: there is none, or one that a verifier never takes for right.
        """
        verifiers = self._job.answers
        who = " and ".join(f"`{name}`" for name in verifiers)
        found = right_answers(fields, self._fields, f"{who} must know the right answer")
        for name, each in verifiers.items():
            if why := misfit(each, found):
                raise DataError(
                    f"the verifier `{name}` takes no answer for right: {why}",
                    "correct the answer in the record, or the settings of the verifier",
                )
        return found


def _in_order(inputs: Mapping[str, Path]) -> Sequence[Path]:
    """The results of the jobs that records come from: `from.0`, `from.1`, …."""
    roles = [role for role in inputs if role.startswith("from.")]
    return [inputs[role] for role in sorted(roles, key=lambda role: int(role[5:]))]
