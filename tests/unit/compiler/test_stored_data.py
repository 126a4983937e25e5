"""Data, weights and URLs in object stores, as specs name them."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from specs import HEAD, check, stage
from stores import Server, server

from etude.cli.common import analyse_file
from etude.compiler.files.store_errors import why, without_secrets
from etude.compiler.files.urls import has_secret, in_store, scheme, shown
from etude.runtime.errors import DataError
from etude.runtime.weight_files import fingerprint
from etude.spec.findings.render import render_all

SECRETS = (
    "s3://AKIA:wJalrX@bucket/a.jsonl",
    "https://user:hunter22@host/a.jsonl",
    "https://hunter22@host/a.jsonl",
    "https://host/a.jsonl?X-Amz-Signature=hunter22&X-Amz-Date=1",
    "https://account.blob.core.windows.net/c/a.jsonl?sv=2&sig=hunter22",
)
PLAIN = (
    "s3://bucket/a@b.jsonl",
    "abfss://container@account.dfs.core.windows.net/a.jsonl",
    "https://host/a.jsonl?page=2",
    "hf://datasets/org/name",
    "data/a@b.jsonl",
)


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as found:
        found.put({"data/a.jsonl": b'{"text": "hello"}\n', "data/b.txt": b"x"})
        yield found


@pytest.fixture
def asked(store: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The environment in which etude finds the store."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield store
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_in_urls_are_seen_and_never_shown(url: str) -> None:
    assert has_secret(url)
    for secret in ("wJalrX", "hunter22"):
        assert secret not in shown(url)
        assert secret not in shown(f"cannot read {url}: denied")


@pytest.mark.parametrize("url", PLAIN)
def test_what_is_no_secret_is_shown(url: str) -> None:
    assert not has_secret(url)
    assert shown(url) == url


@pytest.mark.parametrize("url", SECRETS)
def test_a_spec_with_a_secret_in_a_url_is_refused_and_does_not_show_it(url: str) -> None:
    spec = HEAD.replace("sample = python_docs", f'files = "{url}"') + stage()
    found = [each for each in check(spec) if each.code == "E551"]
    assert len(found) == 1
    text = render_all(found, color=False)
    assert "has a user, a password or a signature in it" in text
    assert "hunter22" not in text
    assert "wJalrX" not in text


def test_a_chain_of_urls_is_of_the_last() -> None:
    assert scheme("zip::s3://bucket/a.zip") == "s3"
    assert in_store("gs://bucket/a")
    assert not in_store("https://host/a")


def found_in(tmp_path: Path, files: str) -> list[tuple[str, str]]:
    """The codes and messages that `etude check` shows of data in a store."""
    spec = tmp_path / "spec.etude"
    spec.write_text(HEAD.replace("sample = python_docs", f'files = "{files}"') + stage())
    report = analyse_file(str(spec)).report
    return [(d.code, d.message) for d in report.ordered() if d.code in ("N657", "E552", "E551")]


def test_data_that_are_there_are_no_finding(asked: Server, tmp_path: Path) -> None:
    assert found_in(tmp_path, "s3://bucket/data/*.jsonl") == []
    assert found_in(tmp_path, "s3://bucket/data/a.jsonl") == []


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ("s3://bucket/none/*.jsonl", "N657", "no object matches"),
        ("s3://bucket/none.jsonl", "N657", "there is no object"),
        ("s3://nothing/*.jsonl", "E552", "there is no bucket `nothing`"),
        ("s3://nothing/a.jsonl", "E552", "there is no bucket `nothing`"),
    ],
)
def test_what_a_store_has_not_is_one_finding(
    asked: Server, tmp_path: Path, files: str, code: str, said: str
) -> None:
    ((found, message),) = found_in(tmp_path, files)
    assert found == code
    assert said in message
    assert "of the data set" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, "there are no credentials for it"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_a_machine_that_cannot_ask_makes_a_note(
    asked: Server,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    changes: dict[str, str | None],
    said: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    ((found, message),) = found_in(tmp_path, "s3://bucket/data/*.jsonl")
    assert found == "N657"
    assert said in message


class _Answer(Exception):
    """An error as botocore makes them."""

    def __init__(self, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("InvalidAccessKeyId", "credentials", "the credentials are wrong"),
        ("SignatureDoesNotMatch", "credentials", "the credentials are wrong"),
        ("ExpiredToken", "credentials", "the credentials have expired"),
        ("AccessDenied", "refused", "access is denied"),
        ("NoSuchBucket", "bucket", "there is no bucket `b`"),
        ("SlowDown", "unreachable", "too busy"),
    ],
)
def test_what_stores_answer_is_put_in_words(code: str, kind: str, said: str) -> None:
    error = PermissionError("no")
    error.__cause__ = _Answer(code)
    found = why("s3://b/x", error)
    assert found.kind == kind
    assert said in found.text
    assert found.help


def test_reasons_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-key")
    said = why("s3://b/x", ValueError("very-secret-key at https://u:pw@host/ is odd"))
    assert "very-secret-key" not in said.text
    assert "pw" not in said.text
    assert without_secrets("plain") == "plain"


def test_weights_in_a_store_have_the_fingerprint_that_they_have_in_a_folder(
    asked: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ETUDE_STORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 1000)
    asked.put({f"w/{path.name}": path.read_bytes() for path in folder.iterdir()})
    here = fingerprint({"folder": "w"}, tmp_path)
    assert fingerprint({"folder": "s3://bucket/w"}, tmp_path) == here
    asked.put({"w/model.safetensors": bytes(range(255, -1, -1)) * 1000})
    assert fingerprint({"folder": "s3://bucket/w"}, tmp_path) != here
    with pytest.raises(DataError, match="there is nothing below s3://bucket/gone"):
        fingerprint({"folder": "s3://bucket/gone"}, tmp_path)
