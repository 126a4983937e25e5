"""Site files: what an account on a cluster is like, and what is said of one that is wrong."""

import re
from pathlib import Path

import pytest

from etude.cli import queueing
from etude.runtime.errors import RunError
from etude.runtime.launchers import remote, sites
from etude.runtime.launchers.launched import QUEUES
from etude.runtime.launchers.slurm_site import SlurmSite, minutes, template


def read(text: str, tmp_path: Path) -> SlurmSite:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return sites.read(path, "slurm", SlurmSite)


@pytest.mark.parametrize(
    ("text", "place", "message", "help"),
    [
        ('[slurm]\npartiton = "a"\n', 2, "[slurm] has no key `partiton`", "did you mean `part"),
        ('partition = "a"\n', 1, "a site file has no key `partition`", "write it below [slurm]"),
        ("[slrum]\n", 1, "no key `slrum`", "did you mean `slurm`?"),
        ('[slurm]\ntime = "abc"', 2, "`time` is not a Slurm time", "write hours:minutes:seconds"),
        ('[slurm]\n\ngres="gpu:8"', 3, "`gres` lacks {devices}", "write gpu:{devices}"),
        ('[slurm]\ncpus="many"', 2, "`cpus` is wrong: input should be", "CPU cores per rank"),
        ("[slurm]\nattempts=0\ncpus=0", 3, "`cpus` is wrong", "CPU cores per rank"),
        ("[slurm]\n[slurm.container]\n", 2, "`container.image` is missing", "the file or name"),
        ('[slurm.phase.gpu]\ntime="1"', 1, "[slurm.phase] has no key `gpu`", "did you mean `cpu`?"),
        ('[slurm.phase.cpu]\ntme="1"', 2, "[slurm.phase.cpu] has no key `tme`", "mean `time`?"),
        ('[slurm.container]\nimage="a"\nruns_with="docker"', 3, "'pyxis' or 'apptainer'", "pyxis"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    text: str, place: int, message: str, help: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError) as raised:
        read(text, tmp_path)
    assert raised.value.message.startswith(f"{tmp_path}/site.toml:{place}: ")
    assert message in raised.value.message
    assert help in raised.value.help


@pytest.mark.parametrize(
    "variable",
    [
        'MLFLOW_TRACKING_PASSWORD = "x"',
        'MLFLOW_TRACKING_TOKEN = "x"',
        'MLFLOW_TRACKING_URI = "https://me:x@host.org"',
        'TRACKIO_WRITE_TOKEN = "x"',
        'TRACKIO_SERVER_URL = "https://host.org/?write_token=x"',
        'AZURE_STORAGE_ACCOUNT_KEY = "x"',
        'hf_token = "x"',
        'OPENAI_API_KEY = "x"',
    ],
)
def test_a_secret_among_the_variables_is_refused_and_not_shown(
    variable: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="is a secret, or has one in it") as raised:
        read(f"[slurm.environment]\n{variable}\n", tmp_path)
    assert f"{tmp_path}/site.toml:2: `{variable.split()[0]}`" in raised.value.message
    assert variable.split()[-1].strip('"') not in raised.value.message + str(raised.value.help)


def test_other_variables_are_not_taken_for_secrets(tmp_path: Path) -> None:
    text = """[slurm.environment]
TOKENIZERS_PARALLELISM = "false"
AWS_SHARED_CREDENTIALS_FILE = "/home/me/.aws/credentials"
MLFLOW_TRACKING_URI = "https://host.org"
NCCL_IB_HCA = "mlx5"
"""
    assert len(read(text, tmp_path).environment) == 4


def test_what_is_no_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not TOML"):
        read("[slurm\n", tmp_path)
    with pytest.raises(RunError, match="cannot be read"):
        sites.read(tmp_path, "slurm", SlurmSite)


def test_the_template_has_every_key_and_can_be_used_as_it_is(tmp_path: Path) -> None:
    text = template("/sites")
    assert read(text, tmp_path) == SlurmSite.model_validate({})
    uncommented = re.sub(r"^#(?=[\w\[])", "", text, flags=re.MULTILINE)
    every = read(uncommented, tmp_path)
    assert every.model_fields_set == set(SlurmSite.model_fields)
    assert every.batch("cpu").partition == "cpu"
    assert every.batch("gang").partition == "gpu"
    assert max(map(len, text.splitlines())) <= 96


def test_a_kind_of_phase_asks_for_what_is_its_own(tmp_path: Path) -> None:
    text = '[slurm]\npartition = "gpu"\ntime = "9:00:00"\n[slurm.phase.cpu]\npartition = "cpu"\n'
    site = read(text, tmp_path)
    assert (site.batch("cpu").partition, site.batch("cpu").time) == ("cpu", "9:00:00")
    assert site.batch("small").partition == "gpu"


def test_a_site_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "folder", lambda: tmp_path)
    assert sites.find(None) is None
    (tmp_path / "big.toml").touch()
    assert sites.find(None) == sites.find("big") == tmp_path / "big.toml"
    (tmp_path / "small.toml").touch()
    with pytest.raises(RunError, match="there are several sites: big, small"):
        sites.find(None)
    with pytest.raises(RunError, match="there is no site `bog`") as raised:
        sites.find("bog")
    assert raised.value.help == "did you mean `big`?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("1:30", 1.5),
        ("1:30:00", 90),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("infinite", float("inf")),
        ("soon", None),
    ],
)
def test_times_are_those_of_slurm(text: str, expected: float | None) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("engine", ["kubernetes", "skypilot"])
def test_the_templates_of_other_engines_have_every_key_too(engine: str, tmp_path: Path) -> None:
    model = remote.TABLES[engine]
    path = tmp_path / "site.toml"
    path.write_text(remote.template(engine, "/sites"))
    sites.read(path, engine, model)  # as it is
    text = re.sub(r"^#(?=\w+ = )", "", path.read_text(), flags=re.MULTILINE)
    # Of SkyPilot's ways to keep the run folder one is chosen.
    path.write_text(text.replace("volume = ", "#volume = ") if engine == "skypilot" else text)
    every = sites.read(path, engine, model)
    others = {"volume"} if engine == "skypilot" else set()
    assert every.model_fields_set == set(model.model_fields) - others
    assert all(of.description for of in model.model_fields.values())


@pytest.mark.parametrize("engine", ["kubernetes", "skypilot"])
def test_the_page_of_clusters_has_every_key(engine: str) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "cluster.md").read_text()
    table = page.partition(f"| key of `[{engine}]` | meaning |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    keys = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert keys == set(remote.TABLES[engine].model_fields)


@pytest.mark.parametrize(
    ("engine", "text", "place", "message", "help"),
    [
        ("kubernetes", 'image = "a"\nvolumee = "b"', 3, "no key `volumee`", "mean `volume`?"),
        ("kubernetes", 'volume = "b"', 1, "`image` is missing", "has etude"),
        ("kubernetes", 'image = ""\nvolume = "b"', 2, "`image` is wrong", "has etude"),
        ("skypilot", 'setup = "x"', 1, "`bucket` or `volume` must say", "correct the table"),
        ("skypilot", 'bucket = "s3://b"', 1, "`setup` or `image`", "correct the table"),
    ],
)
def test_what_is_wrong_for_other_engines_is_said_with_its_line(
    engine: str, text: str, place: int, message: str, help: str, tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    path.write_text(f"[{engine}]\n{text}\n")
    with pytest.raises(RunError) as raised:
        sites.read(path, engine, remote.TABLES[engine])
    assert raised.value.message.startswith(f"{path}:{place}: ")
    assert message in raised.value.message
    assert help in raised.value.help


@pytest.mark.parametrize("engine", ["kubernetes", "skypilot"])
def test_without_a_site_file_that_is_said(engine: str) -> None:
    with pytest.raises(RunError, match="a site file is needed, and there is none"):
        sites.read(None, engine, remote.TABLES[engine])


def test_every_engine_of_launch_has_site_files_and_a_queue() -> None:
    assert {*queueing.ENGINES} == {*sites.ENGINES} == {*QUEUES}
