"""Pre-flight on every node: one message with the node's name, before hours are spent."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from specs import HEAD, plan, stage

from etude.runtime.errors import RunError
from etude.runtime.preflight import nodes
from etude.runtime.preflight.nodes import FREE, Node, look, needed, require_nodes, versions, wrong

SAME = {"python": "3.12.1", "torch": "2.14.1", "etude": "0.1.0+12ab"}
GANG = [Node(rank, f"gpu{rank // 2:03}", SAME, 65536, 100 * FREE) for rank in range(8)]
FOLDER = Path("/scratch/run")
NEEDS = {"lm_eval": ("suites", "etude[eval]")}


def but(**changes: object) -> list[Node]:
    """The gang, with something else on one node."""
    return [replace(n, **changes) if n.host == "gpu002" else n for n in GANG]


def test_nodes_that_are_alike_are_fine() -> None:
    assert wrong(GANG, FOLDER, NEEDS) is None


@pytest.mark.parametrize(
    ("gang", "message", "help"),
    [
        (
            but(sees=False),
            "gpu002 (rank 4) (and 1 more) does not see the run folder /scratch/run of rank 0 on "
            "gpu000",
            "choose a folder on a file system that all nodes share",
        ),
        (
            but(versions=SAME | {"torch": "2.13.0"}),
            "gpu002 (rank 4) (and 1 more) has torch 2.13.0, the others have 2.14.1",
            "use one environment that all nodes share",
        ),
        (
            but(versions={"python": "3.12.1", "etude": "0.1.0+12ab"}),
            "has torch none, the others have 2.14.1",
            "use one environment",
        ),
        (
            but(versions=SAME | {"etude": "0.1.0+77ff"}),
            "has etude 0.1.0+77ff, the others have 0.1.0+12ab",
            "use one environment",
        ),
        (but(files=256), "gpu002 (rank 4) may open 256 files at a time", "ulimit -n 65536"),
        (but(free=FREE // 2), "gpu002 (rank 4) has 32 MiB free in /scratch/run", "free some space"),
        (
            but(lacks=["lm_eval"]),
            "gpu002 (rank 4) lacks the package lm-eval, which suites needs",
            "pip install 'etude[eval]'",
        ),
    ],
)
def test_what_differs_is_said_once_with_the_node(gang: list[Node], message: str, help: str) -> None:
    problem = wrong(gang, FOLDER, NEEDS)
    assert problem
    assert problem.exit_code == 1
    assert message in problem.message
    assert help in problem.help


def test_one_different_node_is_named_even_if_it_is_the_first() -> None:
    gang = [replace(GANG[0], versions=SAME | {"python": "3.11.9"}), *GANG[1:]]
    problem = wrong(gang, FOLDER, NEEDS)
    assert problem
    assert "gpu000 (rank 0) has python 3.11.9, the others have 3.12.1" in problem.message


def test_a_node_survives_its_way_to_rank_0(tmp_path: Path) -> None:
    (tmp_path / "sign").touch()
    found = look(3, tmp_path, ["json", "no_such_module"], "sign")
    assert found == Node.from_json(found.to_json())
    assert (found.rank, list(found.lacks), found.sees) == (3, ["no_such_module"], True)
    assert found.versions == versions()
    assert found.versions["etude"].startswith("0.1.0+")


def test_a_folder_of_its_own_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "PATIENCE", 0.1)
    assert not look(1, tmp_path / "elsewhere", [], "sign").sees


def test_rank_0_says_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    told: dict[str, bytes] = {}

    def share(name: str, value: bytes | None) -> bytes:
        assert value
        assert (tmp_path / json.loads(value)[0]).exists()
        return told.setdefault(name, value)

    def collect(name: str, value: bytes) -> list[bytes]:
        other = replace(Node.from_json(value), rank=1, host="n2", sees=False)
        return [value, other.to_json()]

    with pytest.raises(RunError, match=r"n2 \(rank 1\) does not see the run folder"):
        require_nodes(tmp_path, 0, {}, share, collect)
    assert not list(tmp_path.iterdir())


def test_a_phase_needs_the_packages_of_its_own_jobs() -> None:
    made = plan(
        HEAD
        + "tokenizer words { bytes }\n"
        + stage()
        + 'stage exam: evaluate { suites = { math ["gsm8k"] } }\n'
    )
    ids = [job.id for job in made.jobs]
    assert needed(made, ids) == {"lm_eval": ("suites", "etude[eval]")}
    assert needed(made, ids[:1]) == {}
