"""A store of objects for tests: moto's server of S3, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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

    def client(self) -> Any:
        """boto3's client of it, which etude does not use."""
        import boto3

        return boto3.client(
            "s3",
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

    def empty(self) -> None:
        """Removes all objects, and the bucket."""
        client = self.client()
        for name in self.names():
            client.delete_object(Bucket="bucket", Key=name)
        client.delete_bucket(Bucket="bucket")


@contextmanager
def server() -> Iterator[Server]:
    """A server on a port that the system has chosen for it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
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
