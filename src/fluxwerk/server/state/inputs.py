"""The images that came with a task: stored beside it until it has ended, and read by who renders it."""

from __future__ import annotations

from dataclasses import replace

from fluxwerk.engines import Canvas, Order
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.tasks import input_file
from fluxwerk.storage import Storage


def name(job: TaskRecord) -> None:
    """Name the images of an order in its task."""
    job.inputs = tuple(_images(job.order))


def keep(files: Storage, job: TaskRecord) -> None:
    """Store the images of an order, under the names that its task has for them."""
    for name, data in _images(job.order).items():
        files.put(input_file(job.task.id, name), data, overwrite=True)


def take(files: Storage, job: TaskRecord) -> bool:
    """Give an order its images back; says whether all of them are there."""
    found = {name: files.get(input_file(job.task.id, name)) for name in job.inputs}
    read = {name: data for name, data in found.items() if data is not None}
    if len(read) < len(found):
        return False
    references = tuple(data for name, data in read.items() if name.startswith("reference"))
    canvas = job.order.canvas
    if canvas is not None:
        canvas = Canvas(read["source"], read.get("mask"), canvas.offset)
    job.order = replace(job.order, references=references, canvas=canvas)
    return True


def _images(order: Order) -> dict[str, bytes]:
    images = {f"reference-{number:02}": data for number, data in enumerate(order.references)}
    if order.canvas is not None:
        images["source"] = order.canvas.source
        if order.canvas.mask is not None:
            images["mask"] = order.canvas.mask
    return images
