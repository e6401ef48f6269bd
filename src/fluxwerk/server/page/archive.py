"""Several images at once: as a ZIP of the files, and as one contact sheet."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime

from fluxwerk.engines.codec import decode
from fluxwerk.server.page.thumbnails import LARGEST_ORIGINAL
from fluxwerk.server.state.task import TaskRecord

MOST_PACKED = 200
LARGEST_ARCHIVE = 512 * 1024 * 1024
TILE, GAP, COLUMNS_OF_SHEET = 384, 24, 4
PAPER = (250, 250, 249)


def file_name(job: TaskRecord) -> str:
    """Name a download after the day, the prompt and the task, in letters that every file system takes."""
    words = re.findall(r"[a-z0-9]+", job.order.prompt.lower())[:6]
    day = datetime.fromtimestamp(job.accepted, UTC).strftime("%Y-%m-%d")
    return "-".join([day, *words, job.task.id[:8]]) + f".{job.order.output_format}"


def pack(images: Sequence[tuple[TaskRecord, bytes]]) -> bytes:
    """Write a ZIP; the images are compressed already, so they are only stored."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for job, image in images:
            archive.writestr(file_name(job), image)
    return file.getvalue()


def sheet(images: Sequence[bytes]) -> bytes:
    """Paste the images onto one sheet, in their order, as JPEG."""
    from PIL import Image  # noqa: PLC0415 - heavy

    columns = min(COLUMNS_OF_SHEET, len(images))
    rows = -(-len(images) // columns)
    step = TILE + GAP
    paper = Image.new("RGB", (columns * step + GAP, rows * step + GAP), PAPER)
    for number, data in enumerate(images):
        picture = decode(data, LARGEST_ORIGINAL).convert("RGB")
        picture.thumbnail((TILE, TILE))
        row, column = divmod(number, columns)
        left, top = (TILE - picture.width) // 2, (TILE - picture.height) // 2
        paper.paste(picture, (GAP + column * step + left, GAP + row * step + top))
    file = io.BytesIO()
    paper.save(file, "JPEG", quality=88)
    return file.getvalue()
