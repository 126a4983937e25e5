"""The pages of codes: their examples have what they say, and every code has one."""

import re
import subprocess
from pathlib import Path

import pytest
from specs import check, stage

from etude.compiler.examples import findings, frame
from etude.spec.findings import codes

ELSEWHERE = (
    *("E481", "E482", "E491", "E492", "E525", "E542", "E543", "E549", "E552", "E561"),
    *("E562", "E563"),
    *("W676", "W677", "W678", "W679", "N671"),
)
"""What only `--miniature` and `plan --deep` find, what is found in folders of weights, in large
files, in files of data and in object stores."""


@pytest.mark.parametrize("code", [code for code in codes.known() if code not in ELSEWHERE])
def test_the_wrong_example_has_its_code_and_the_right_one_nothing_but_notes(
    code: str, tmp_path: Path
) -> None:
    def found(example: codes.Example) -> set[str]:
        if example.shell:
            subprocess.run(["sh", "-ec", example.shell], cwd=tmp_path, check=True, timeout=10)
        return {d.code for d in findings(example, tmp_path)}

    page = codes.rule(code)
    notes = {other for other in codes.known() if other[0] == "N" and other != code}
    assert found(page.wrong) - notes == {code}
    assert found(page.right) <= notes


@pytest.mark.parametrize("name", ["head", "first", "post"])
def test_nothing_is_wrong_with_what_examples_stand_beside(name: str) -> None:
    more = stage(model="tiny") if name == "head" else ""
    assert {d.severity for d in check(frame(name) + more)} <= {"warning", "note"}


def test_every_code_in_the_source_is_documented_and_every_documented_code_is_raised() -> None:
    packages = Path(codes.__file__).parents[2]
    sources = [
        path.read_text()
        for folder in ("spec", "compiler")
        for path in (packages / folder).rglob("*.py")
    ]
    raised = {code for text in sources for code in re.findall(r'"([EWN]\d{3})"', text)}
    assert raised == set(codes.known())
