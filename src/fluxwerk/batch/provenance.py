"""Where an image came from, kept with it: a JSON file beside it, or XMP metadata inside a PNG or JPEG.

The text is the same for the same task, so that saving twice after a crash gives the same bytes.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from fluxwerk.errors import InvalidUsageError
from fluxwerk.imagefile import PNG_SIGNATURE
from fluxwerk.ledger.job import Job
from fluxwerk.protocol.trust import redact
from fluxwerk.protocol.wire import dump
from fluxwerk.types import Json, Status, is_flux

ORIGIN_FORMAT = 1
SIDECAR_SUFFIX = ".json"
XMP_KEYWORD = b"XML:com.adobe.xmp"
JPEG_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_START = b"\xff\xd8"
# A segment of a JPEG counts its length in 16 bits.
LONGEST_SEGMENT = 65_533
XMP_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:fluxwerk="urn:fluxwerk:provenance:1">'
    "<fluxwerk:origin>{}</fluxwerk:origin>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
ORIGIN = re.compile(rb"<fluxwerk:origin>(.*?)</fluxwerk:origin>", re.DOTALL)
# What opens or proves something, and so is in no file that goes out.
SECRET_FIELDS = frozenset({"webhook_url", "webhook_secret"})
LINKS = ("http://", "https://")
# What stands in a link for its query.
CUT_QUERY = redact("?q")
LONGEST_READ = 64 * 1024 * 1024


def origin(job: Job, status: Status, *, prompts: bool = True) -> dict[str, Json]:
    """Describe how an image was made; without `prompts` it holds neither the prompt nor a hash to guess it by."""
    kept = {name: _without_query(name, value) for name, value in job.fields.items() if name not in SECRET_FIELDS}
    fields = {name: value for name, value in kept.items() if prompts or name != "prompt"}
    return {
        "fluxwerk": ORIGIN_FORMAT,
        "model": job.model,
        "engine": status.engine or "bfl",
        "is_flux": is_flux(status.engine),
        "prompt": job.fields.get("prompt") if prompts else None,
        "seed": job.fields.get("seed") if status.seed is None else status.seed,
        "request": fields,
        "request_hash": job.hash if prompts else None,
        "job": job.id,
        "tag": job.tag,
        "task": status.task.id,
        "cost": job.cost,
        "submitted": None if job.submitted is None else datetime.fromtimestamp(job.submitted, UTC).isoformat(),
    }


def is_cut(value: Json) -> bool:
    """Whether a field's value is a link, or holds one, whose query was not kept."""
    if isinstance(value, list):
        return any(is_cut(item) for item in cast("list[Json]", value))
    return isinstance(value, str) and value.startswith(LINKS) and CUT_QUERY in value


def _without_query(name: str, value: Json) -> Json:
    """Leave the query of a link out: it may be signed, and then it opens the image."""
    if isinstance(value, list):
        return [_without_query(name, item) for item in cast("list[Json]", value)]
    is_link = name != "prompt" and isinstance(value, str) and value.startswith(LINKS)
    return redact(value) if is_link else value


def embed(data: bytes, facts: Mapping[str, Json]) -> bytes | None:
    """Put the origin into a PNG or JPEG as XMP, or return `None` where there is no room for it."""
    packet = XMP_PACKET.format(html.escape(dump(facts).decode("utf-8", "replace"), quote=False)).encode()
    if data.startswith(PNG_SIGNATURE):
        chunk = b"iTXt" + XMP_KEYWORD + b"\0\0\0\0\0" + packet
        head_ends = len(PNG_SIGNATURE) + 25
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:head_ends] + whole + data[head_ends:]
    segment = JPEG_HEADER + packet
    if data.startswith(JPEG_START) and len(segment) <= LONGEST_SEGMENT:
        at = _after_jfif(data)
        return data[:at] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[at:]
    return None


def extract(data: bytes) -> dict[str, Json] | None:
    """Read the origin that `embed` wrote, or `None` if there is none."""
    found = ORIGIN.search(data)
    if found is None:
        return None
    return _parsed(html.unescape(found[1].decode("utf-8", "replace")))


def write_sidecar(facts: Mapping[str, Json]) -> bytes:
    """Write the origin as the JSON that lies beside an image."""
    return (json.dumps(json.loads(dump(facts)), indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def read_origin(path: Path) -> dict[str, Json]:
    """Find the origin of an image file, in it or beside it; raises `InvalidUsageError` if none was kept."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_READ)
        beside = path if path.suffix == SIDECAR_SUFFIX else path.with_name(path.name + SIDECAR_SUFFIX)
        text = beside.read_text(encoding="utf-8") if beside.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidUsageError(f"{path} cannot be read: {error}.") from None
    facts = _parsed(text) if text else extract(data)
    if facts is None:
        raise InvalidUsageError(
            f"{path} has no origin: there is no {path.name}{SIDECAR_SUFFIX} beside it and no XMP of fluxwerk inside."
        )
    return facts


def _parsed(text: str) -> dict[str, Json] | None:
    try:
        facts: Json = json.loads(text)
    except ValueError:
        return None
    if not isinstance(facts, dict) or "fluxwerk" not in facts:
        return None
    found = cast("dict[str, Json]", facts)
    whole = isinstance(found.get("model"), str) and isinstance(found.get("request", {}), dict)
    return found if whole else None


def _after_jfif(data: bytes) -> int:
    """Find the end of a JPEG's first segment if that is JFIF's, which has to stay first."""
    if data[2:4] != b"\xff\xe0":
        return 2
    return 4 + int(struct.unpack(">H", data[4:6])[0])
