"""A store of objects for tests: moto's server of S3, in a process of its own."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from etude.compiler.files import store_access

PYTHON = Path(__file__).resolve().parents[1] / "build" / "moto" / "bin" / "python"
"""moto's, whose packages do not go together with those of etude: pip looks for minutes for versions
of boto3 and of s3fs's own library that do."""

_SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
KEY, SECRET = "AKIATESTTESTTESTTEST", "only-of-a-test/wJalrXUtnFEMI"


@dataclass(frozen=True)
class Server:
    """A server with the bucket `bucket`."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What tells programs where the server is, and who asks."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service: str = "s3") -> Any:
        """A client of it, which etude does not use."""
        from botocore.session import get_session

        return get_session().create_client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def put(self, files: Mapping[str, bytes]) -> None:
        """Puts objects into the bucket."""
        client = self.client()
        for name, content in files.items():
            client.put_object(Bucket="bucket", Key=name, Body=content)

    def read(self, name: str) -> bytes:
        return self.client().get_object(Bucket="bucket", Key=name)["Body"].read()

    def names(self, prefix: str = "", bucket: str = "bucket") -> list[str]:
        pages = self.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in found for each in page.get("Contents", ())]

    def removed(self, bucket: str) -> bool:
        """Removes a bucket with all that is in it, into which somebody may be writing; whether
        that went well."""
        client = self.client()
        for name in self.names(bucket=bucket):
            client.delete_object(Bucket=bucket, Key=name)
        try:
            client.delete_bucket(Bucket=bucket)
        except client.exceptions.ClientError:
            return False
        return True

    def vanish(self) -> None:
        """Removes everything at once, while somebody may be writing: all buckets are gone."""
        request = Request(f"{self.endpoint}/moto-api/reset", method="POST")
        with urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def empty(self) -> None:
        """Removes all objects, and the bucket."""
        client = self.client()
        for name in self.names():
            client.delete_object(Bucket="bucket", Key=name)
        client.delete_bucket(Bucket="bucket")


READER = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    ],
}


@contextmanager
def guarded() -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that knows one user, who may list and read and not write; and that user's keys, in
    the variables that programs look at."""
    with server(open_for=4) as found:
        iam = found.client("iam")
        iam.create_user(UserName="reader")
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        iam.put_user_policy(
            UserName="reader", PolicyName="reader", PolicyDocument=json.dumps(READER)
        )
        yield (
            found,
            {
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            },
        )


@contextmanager
def server(open_for: int | None = None) -> Iterator[Server]:
    """A server on a port that the system has chosen for it.

    Args:
        open_for: requests that anybody may make; from then on it asks who somebody is.
    """
    if not PYTHON.exists() and not os.environ.get("ETUDE_NEEDS_STORES"):
        pytest.skip("needs moto in build/moto: make build/moto/.installed")
    guard = {} if open_for is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(open_for)}
    process = subprocess.Popen(
        [PYTHON, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **guard},
    )
    assert process.stdin
    assert process.stdout
    try:
        found = Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        found.client().create_bucket(Bucket="bucket")
        yield found
    finally:
        process.stdin.close()
        process.wait(30)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is asked once, not for half a minute."""
    monkeypatch.setattr(store_access, "MOST_TRIES", 1)
