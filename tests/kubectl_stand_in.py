"""A stand-in for kubectl and its cluster, whose state is JSON in a folder: the tests' own machine
has no Kubernetes. A phase is complete, or has failed, after it has been looked at a few times."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

STATE = Path(__file__).with_name("cluster.json")
PLURALS = {
    "trainjobs.trainer.kubeflow.org": "TrainJob",
    "jobs.batch": "Job",
    "trainingruntimes.trainer.kubeflow.org": "TrainingRuntime",
    "configmaps": "ConfigMap",
    "pods": "Pod",
}
LOOKS = 2


def main(words: list[str]) -> int:
    state: dict[str, Any] = json.loads(STATE.read_text())
    if words[0] == "config":
        print("the-cluster")
        return 0
    verb, rest = words[0], words[5:]  # after --context and --namespace
    if state["gone"] > 0 and verb == "get":
        state["gone"] -= 1
        STATE.write_text(json.dumps(state))
        print("Unable to connect to the server: dial tcp: i/o timeout", file=sys.stderr)
        return 1
    code = {"apply": apply, "get": get, "delete": delete}[verb](state, rest)
    STATE.write_text(json.dumps(state))
    return code


def apply(state: dict[str, Any], words: list[str]) -> int:
    for document in yaml.safe_load_all(sys.stdin.read()):
        if document["kind"] in state["unknown"]:
            print(
                f'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no '
                f'matches for kind "{document["kind"]}" in version "{document["apiVersion"]}"',
                file=sys.stderr,
            )
            return 1
        if not any(word.startswith("--dry-run") for word in words):
            name = f"{document['kind']}/{document['metadata']['name']}"
            state["objects"].setdefault(name, document)
            state["applied"].append(name)
    return 0


def selected(state: dict[str, Any], kinds: str, selector: str) -> dict[str, Any]:
    wanted = dict(each.split("=") for each in selector.split(","))
    names = {PLURALS[kind] for kind in kinds.split(",")}
    return {
        name: found
        for name, found in state["objects"].items()
        if found["kind"] in names and wanted.items() <= found["metadata"]["labels"].items()
    }


def get(state: dict[str, Any], words: list[str]) -> int:
    if "-l" in words:
        found = list(selected(state, words[0], words[words.index("-l") + 1]).values())
        print(json.dumps({"items": found}))
        return 0
    found = state["objects"].get(f"{PLURALS[words[0]]}/{words[1]}")
    if found is None:
        return 0
    found["looks"] = found.get("looks", 0) + 1
    if found["looks"] > LOOKS:
        end = next((e for n, e in state["ends"].items() if words[1].endswith(n)), "Complete")
        condition = {"type": end, "status": "True", "reason": "PodFailurePolicy", "message": "…"}
        found["status"] = {"conditions": [condition]}
    print(json.dumps(found))
    return 0


def delete(state: dict[str, Any], words: list[str]) -> int:
    for name in selected(state, words[0], words[words.index("-l") + 1]):
        del state["objects"][name]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
