"""Files that are not what they were: bits turned over, parts cut out, doubled, moved or put in,
numbers made huge, and values of JSON replaced by others."""

import contextlib
import gzip
import json
import random
from pathlib import Path
from typing import Any

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, 10**40, 1e308, float("nan"), float("inf"), ""),
    *("\u0000", "\ud800", "x" * 5000, [], {}, [[]], {"": {}}, [None], {"content": None}),
    *("../../etc/passwd", "{{ 1 }}", "<|im_end|>", {"role": "user"}, [1, "a", {}]),
)


def changed(content: bytes, chance: random.Random) -> bytes:
    """A file that is not what it was."""
    kind = chance.randrange(9)
    place = chance.randrange(len(content) + 1)
    size = chance.choice([1, 4, 8, 64, 1000])
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + chance.randbytes(size) + content[place + size :]
    if kind == 2:
        return content[:place] + content[place + size :]
    if kind == 3:
        return content[:place] + content[place : place + size] * chance.choice([2, 50])
    if kind == 4:
        number = chance.choice([0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
        width = chance.choice([4, 8])
        data = (number % 2 ** (8 * width)).to_bytes(width, "little")
        return content[:place] + data + content[place + width :]
    if kind == 5:
        return chance.randbytes(chance.choice([0, 1, 20, 300]))
    if kind == 6:
        return content[:place] + chance.choice([b"\xff\xfe", b"\0", b"\r", b'"', b"[" * 9999])
    if kind == 7:
        return content[place:] + content[:place]
    for _ in range(chance.choice([1, 3])):
        place = chance.randrange(max(len(content), 1))
        flipped = bytes([content[place] ^ 1 << chance.randrange(8)]) if content else b""
        content = content[:place] + flipped + content[place + 1 :]
    return content


def replaced(value: Any, chance: random.Random) -> Any:
    """A value of JSON with another one somewhere in it, or without something."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = chance.choice(list(value))
        if chance.random() < 0.15:
            return {n: v for n, v in value.items() if n != name}
        return {**value, name: replaced(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        return [*value[:place], replaced(value[place], chance), *value[place + 1 :]]
    return chance.choice(NASTY)


def spoil(path: Path, chance: random.Random) -> None:
    """Changes a file: values of JSON where it has some, or bytes; inside of gzip, too."""
    content = path.read_bytes()
    packed = path.suffix == ".gz" and chance.random() < 0.7
    if packed:
        content = gzip.decompress(content)
    text = ".json" in path.name and (packed or path.suffix in (".json", ".jsonl"))
    if text and chance.random() < 0.5:
        lines = content.decode().splitlines()
        with contextlib.suppress(ValueError):
            if len(lines) > 1 and "jsonl" in path.name:
                place = chance.randrange(len(lines))
                lines[place] = json.dumps(replaced(json.loads(lines[place]), chance))
                content = ("\n".join(lines) + "\n").encode()
            else:
                content = json.dumps(replaced(json.loads(content), chance)).encode()
    else:
        content = changed(content, chance)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
