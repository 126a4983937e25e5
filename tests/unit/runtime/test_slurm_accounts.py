"""Accounts and partitions that Slurm does not know, by what sacctmgr and sinfo print.

The virtual cluster of `tests/slurm` keeps no books, so stand-ins print here what the manual says:
`sacctmgr --noheader --parsable2` an association a line, `sinfo --format='%P %l %D'` a partition.
"""

from pathlib import Path

import pytest
from specs import HEAD, plan, stage
from stand_ins import Programs

from etude.runtime.errors import RunError
from etude.runtime.launchers.engine import Request
from etude.runtime.launchers.slurm import Slurm, partitions

ACCOUNTS = "cat <<'END'\nphysics\nphysics\nchemistry\nEND"
"""A user with two associations of one account: with and without a partition."""
NO_BOOKS = "echo 'You are not running a supported accounting_storage plugin' >&2; exit 1"


@pytest.fixture
def slurm(programs: Programs) -> Programs:
    programs.slurm({})
    programs.write("sinfo", "cat <<'END'\ncpu* 1:00:00 4\ngpu 2-00:00:00 16\nlong infinite 2\nEND")
    programs.write("sbatch", 'case "$*" in *--test-only*) ;; *) echo 7;; esac')
    programs.write("sacctmgr", ACCOUNTS)
    return programs


def submit(folder: Path, site: str) -> list[str]:
    words = "tokenizer words { train = { on [web], vocab 300 } }\n"
    text = HEAD + words + stage(data="{ web 100% }")
    (folder / "site.toml").write_text(f"[slurm]\n{site}\n")
    request = Request(plan(text), folder / "run", folder, folder / "site.toml")
    Slurm().ready(request)
    return Slurm().submit(request)


def refused(folder: Path, site: str) -> RunError:
    with pytest.raises(RunError) as at:
        submit(folder, site)
    return at.value


def test_partitions_are_read_as_sinfo_prints_them(slurm: Programs) -> None:
    found = partitions()
    assert [(p.name, p.limit, p.nodes, p.default) for p in found.values()] == [
        ("cpu", 60, 4, True),
        ("gpu", 2880, 16, False),
        ("long", float("inf"), 2, False),
    ]


@pytest.mark.parametrize("account", ["physics", "chemistry", "Physics"])
def test_an_account_of_the_user_is_taken(account: str, slurm: Programs, tmp_path: Path) -> None:
    assert submit(tmp_path, f'account = "{account}"')
    asked = slurm.called("sacctmgr")
    assert len(asked) == 1
    assert asked[0].startswith("sacctmgr --noheader --parsable2 show assoc user=")
    assert asked[0].endswith(" format=account")


@pytest.mark.parametrize(
    ("account", "help"),
    [("phisics", "did you mean `physics`?"), ("x", "there are chemistry, physics")],
)
def test_another_is_refused_before_anything_is_queued(
    account: str, help: str, slurm: Programs, tmp_path: Path
) -> None:
    problem = refused(tmp_path, f'account = "{account}"')
    assert f"{tmp_path / 'site.toml'}: Slurm has no account `{account}` for " in problem.message
    assert problem.help == help
    assert slurm.called("sbatch") == []
    assert not (tmp_path / "run").exists()


def test_one_of_a_kind_of_phase_counts_too(slurm: Programs, tmp_path: Path) -> None:
    site = 'account = "physics"\n[slurm.phase.gang]\naccount = "physic"'
    assert "Slurm has no account `physic`" in refused(tmp_path, site).message


@pytest.mark.parametrize("says", [NO_BOOKS, "", "echo; echo"])
def test_where_slurm_keeps_no_books_sbatch_decides(
    says: str, slurm: Programs, tmp_path: Path
) -> None:
    slurm.write("sacctmgr", says)
    assert submit(tmp_path, 'account = "anything"')
    slurm.write(
        "sbatch",
        "echo 'sbatch: error: Invalid account or account/partition combination' >&2; exit 1",
    )
    problem = refused(tmp_path, 'account = "anything"')
    assert "Slurm rejects" in problem.message
    assert "Invalid account or account/partition combination" in problem.message


def test_a_partition_that_slurm_does_not_know_is_refused(slurm: Programs, tmp_path: Path) -> None:
    problem = refused(tmp_path, 'partition = "gpus"')
    assert problem.message == "Slurm has no partition `gpus`"
    assert problem.help == "did you mean `gpu`?"
    assert slurm.called("sbatch") == []
