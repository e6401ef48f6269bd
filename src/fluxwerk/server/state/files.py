"""The files of a task: the images that came with it, and the one that is made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fluxwerk.engines import Order
from fluxwerk.server.state import inputs
from fluxwerk.server.state.cache import Answers
from fluxwerk.server.state.store import Store
from fluxwerk.server.state.task import TaskRecord
from fluxwerk.server.state.tasks import Tasks, image_file, input_files


class ImageFile(NamedTuple):
    """An image in the storage, with its bytes."""

    name: str
    size: int


class TaskFiles:
    """Writes files before the rows that name them, so that no row lacks one and no lock waits for a store.

    What no row came to name is removed, whatever happened: it was announced, or its name can be told from the task's.

    A task is shown once `pace` has passed since it was accepted; `answers` are told what was made for which request.
    """

    def __init__(
        self,
        tasks: Tasks,
        store: Store,
        answers: Answers,
        clock: Callable[[], float],
        pace: Callable[[Order], float],
    ) -> None:
        self._tasks = tasks
        self._files = store.files
        self._answers = answers
        self._clock = clock
        self._pace = pace

    def announce(self, job: TaskRecord, answer: bytes | None) -> list[str]:
        """Name the files that a submit is about to write, and have them go unless its row comes to name them."""
        inputs.name(job)
        files = [*input_files(job), *([] if answer is None else [image_file(job)])]
        self._tasks.removals.announce(files, self._clock())
        return files

    def keep_inputs(self, job: TaskRecord) -> None:
        """Store the images that came with a task, under names that were announced."""
        inputs.keep(self._files, job)

    def take_inputs(self, job: TaskRecord) -> bool:
        """Give a task its images back; says whether all of them are there."""
        return inputs.take(self._files, job)

    def finish(self, job: TaskRecord, image: bytes) -> bool:
        """Write the image under a name of this worker's own, then the move; a late image goes again."""
        written = self.put_image(job, image)
        if not self.show(job, written):
            self._tasks.removals.announce([written.name], self._clock())
            self.remove([written.name])
            return False
        if not job.cached:
            self._answers.note(job.order)
        self.tidy(job)
        return True

    def put_image(self, job: TaskRecord, image: bytes) -> ImageFile:
        """Write the image of a task that this process has, and name it."""
        name = image_file(job)
        self._files.put(name, image, overwrite=True)
        return ImageFile(name, len(image))

    def show(self, job: TaskRecord, image: ImageFile) -> bool:
        """End the task with its image; says whether the task was still this process's."""
        now = self._clock()
        return self._tasks.finish(job, image.name, image.size, now, max(now, job.accepted + self._pace(job.order)))

    def remove(self, files: Sequence[str]) -> None:
        """Remove files that are noted to go, as far as the storage lets."""
        self._tasks.removals.remove(files)

    def tidy(self, job: TaskRecord) -> None:
        """Remove what is needed no longer, now that a task has its image."""
        self.remove(input_files(job))
        self._tasks.make_room(self._clock())
