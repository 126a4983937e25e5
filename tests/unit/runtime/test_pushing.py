"""Pushing models to the Hub, against a stand-in for the few routes that the library calls."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from specs import HEAD, after, plan, stage

from etude.compiler.plan.part import NoSuchStage
from etude.runtime.errors import RunError
from etude.runtime.pushing import card, repository, require_login, upload

TOKEN = "hf_onlyOfATestOnlyOfATest"


class Hub:
    """What the stand-in has been told."""

    def __init__(self) -> None:
        self.address = ""
        self.repos: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.refused: dict[str, int] = {}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

        def _answer(self, content: Any, status: int = 200) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            if self.path == "/api/whoami-v2":
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                self._answer({"name": "somebody", "orgs": []}, 200 if known else 401)
            else:
                self._answer({"id": "org/name", "siblings": [], "sha": "0" * 40})

        def do_PUT(self) -> None:
            self.server.hub.large[self.path.rpartition("/")[2]] = self._body()  # type: ignore[attr-defined]
            self._answer({})

        def do_POST(self) -> None:
            body, path = self._body(), self.path
            for part, status in hub.refused.items():
                if part in path:
                    return self._answer({"error": "no"}, status)
            if path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization')}/{asked['name']}"
                if name in hub.repos:
                    url = f"{hub.address}/{name}"
                    return self._answer({"error": "You already created this", "url": url}, 409)
                hub.repos[name] = asked.get("private", asked.get("visibility") == "private")
                return self._answer({"url": f"{hub.address}/{name}"})
            if "/preupload/" in path:
                return self._answer(
                    {
                        "files": [
                            {
                                "path": file["path"],
                                "uploadMode": "lfs" if "safetensors" in file["path"] else "regular",
                                "shouldIgnore": False,
                            }
                            for file in json.loads(body)["files"]
                        ]
                    }
                )
            if path.endswith("/info/lfs/objects/batch"):
                return self._answer({"transfer": "basic", "objects": self._where(body)})
            if "/commit/" in path:
                for line in map(json.loads, body.splitlines()):
                    self._take(line["key"], line["value"])
                sha = "1" * 40
                url = f"{hub.address}/org/name/commit/{sha}"
                return self._answer({"success": True, "commitOid": sha, "commitUrl": url})
            return self._answer({})

        def _where(self, body: bytes) -> list[dict[str, Any]]:
            return [
                {
                    **each,
                    "actions": {"upload": {"href": f"{hub.address}/large/{each['oid']}"}},
                }
                for each in json.loads(body)["objects"]
            ]

        def _take(self, key: str, value: dict[str, Any]) -> None:
            if key == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                hub.files[value["path"]] = hub.large[value["oid"]]

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.hub = found  # type: ignore[attr-defined]
    found.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder like an exported model."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "README.md").write_text("# card\n")
    return tmp_path


def test_a_model_goes_up_whole_and_private(hub: Hub, model: Path) -> None:
    api = HfApi(endpoint=hub.address)
    assert require_login(api) == "somebody"
    where = upload(api, "org/name", model, public=False, replace=False)
    assert where.endswith("/org/name")
    assert hub.repos == {"org/name": True}
    assert hub.files == {path.name: path.read_bytes() for path in model.iterdir()}
    (digest,) = hub.large
    assert digest == hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def test_a_repository_that_is_there_is_not_overwritten_unasked(hub: Hub, model: Path) -> None:
    api = HfApi(endpoint=hub.address)
    upload(api, "org/name", model, public=True, replace=False)
    assert hub.repos == {"org/name": False}
    with pytest.raises(RunError) as problem:
        upload(api, "org/name", model, public=True, replace=False)
    assert "there is a repository of that name" in problem.value.message
    assert "--replace" in problem.value.help
    upload(api, "org/name", model, public=True, replace=True)


@pytest.mark.parametrize(
    ("status", "said", "help"),
    [
        (401, "it does not know the token", "hf auth login"),
        (403, "the token does not allow that", "HF_TOKEN"),
    ],
)
def test_what_the_hub_refuses_is_one_message(
    hub: Hub, model: Path, status: int, said: str, help: str
) -> None:
    hub.refused["/api/repos/create"] = status
    with pytest.raises(RunError) as problem:
        upload(HfApi(endpoint=hub.address), "org/name", model, public=False, replace=False)
    assert said in problem.value.message
    assert help in problem.value.help
    assert TOKEN not in problem.value.message + problem.value.help


def test_without_a_token_nothing_is_made(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(RunError, match="nobody is logged in"):
        require_login(HfApi(endpoint=hub.address))


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(RunError) as problem:
        require_login(HfApi(endpoint="http://127.0.0.1:9"))
    assert problem.value.message.startswith("the Hub does not tell who you are")
    assert "etude export" in problem.value.help
    assert TOKEN not in problem.value.message


@pytest.mark.parametrize("url", ["org/name", "hf://name", "hf://a/b/c", "s3://org/name"])
def test_what_names_no_repository_is_refused(url: str) -> None:
    with pytest.raises(RunError, match="names no repository on the Hub"):
        repository(url)
    assert repository("hf://org/name") == "org/name"


def test_the_card_has_the_facts_of_the_recipe() -> None:
    made = plan(HEAD + stage() + after())
    text = card(made, "second")
    trained = {job.stage: (job.steps, job.tokens) for job in made.jobs if job.kind == "train"}
    for name, (steps, tokens) in trained.items():
        assert f"| {name} | {steps:,} | {tokens:,} |" in text
    assert f"trained on {sum(tokens for _, tokens in trained.values()):,} tokens" in text
    assert "| family | llama3 |" in text
    assert "Made with etude " in text
    assert "second" not in card(made, "first")
    with pytest.raises(NoSuchStage):
        card(made, "third")
