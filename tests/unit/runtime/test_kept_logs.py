"""The logs that a run folder keeps of its ranks."""

from pathlib import Path

import pytest

from etude.runtime.run_folder.logs import RankLog, of_phase, rank_logs


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "logs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def log(path: Path) -> RankLog:
    return RankLog(path, "", 0, 0.0)


def test_logs_are_told_apart_by_their_names(tmp_path: Path) -> None:
    for name in ("rank-10.log", "rank-2.log", "10-gang.rank-0.log", "2-gang.rank-1.log"):
        write(tmp_path, name, "x\n")
    write(tmp_path, "2-gang.log", "x\n")
    write(tmp_path, "notes.txt", "x\n")
    (tmp_path / "log").write_text("x\n")
    found = [(each.phase, each.rank) for each in rank_logs(tmp_path)]
    assert found == [
        *[("", None), ("", 2), ("", 10)],
        *[("2-gang", None), ("2-gang", 1), ("10-gang", 0)],
    ]
    assert [each.rank for each in of_phase(rank_logs(tmp_path), "2-gang")] == [1]


def test_where_no_rank_has_a_log_that_of_the_script_is_shown(tmp_path: Path) -> None:
    write(tmp_path, "1-cpu.log", "slurmstepd: error\n")
    assert [each.rank for each in of_phase(rank_logs(tmp_path), "1-cpu")] == [None]
    assert rank_logs(tmp_path / "nothing") == []


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
@pytest.mark.parametrize("length", [3, 30_000])
def test_the_last_lines_are_found_from_the_end(count: int, length: int, tmp_path: Path) -> None:
    lines = [f"{n} " + "x" * length for n in range(12)]
    path = write(tmp_path, "rank-0.log", "".join(f"{line}\n" for line in lines))
    assert log(path).last(count) == (lines[-count:] if count else [])


def test_a_line_that_is_being_written_comes_when_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "rank-0.log", "one\ntwo\nthr")
    assert log(path).last(2) == ["two", "thr"]
    place = log(path).size()
    assert place == len("one\ntwo\n")
    assert log(path).since(place) == ([], place)
    with path.open("a") as file:
        file.write("ee\nfour\nfi")
    lines, place = log(path).since(place)
    assert lines == ["three", "four"]
    path.write_text("anew\n")  # shorter: somebody has emptied it
    assert log(path).since(place)[0] == ["anew"]


def test_of_a_bar_the_last_state_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "rank-0.log", "loading 1%\rloading 50%\rloading 100%\nwindows\r\n")
    assert log(path).last(5) == ["loading 100%", "windows"]


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path, "rank-0.log", "")
    path.write_bytes(b"a\xff\xfeb\n")
    assert log(path).last(1) == ["a\ufffd\ufffdb"]
