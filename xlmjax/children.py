"""What a process that another one has started does when that one ends, killed or not."""

import multiprocessing
import os
import threading
from collections.abc import Callable


def when_parent_ends(act: Callable[[], object]) -> None:
    """Call `act`, from a thread, when the process that started this one has ended."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            act()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def end_with_parent() -> None:
    """End this process at once when its parent has ended: initializer of pools."""
    when_parent_ends(lambda: os._exit(1))
