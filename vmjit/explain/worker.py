"""Listings made by other processes, while this one makes some itself: compilers take seconds, each on one core.

`python -m vmjit.explain.worker` reads a pickled subject and names of targets, and writes what `listings_of` gives.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from vmjit.cpu_engine import core_count
from vmjit.explain.kept import keep_listing, kept_listing
from vmjit.explain.listings import Listing
from vmjit.explain.targets import TARGETS, Subject, listings_of

Made = tuple[dict[str, Listing], dict[str, str]]

# Below this many instructions a process takes longer to start than it saves.
_SMALL = 100


class _Worker:
    """A process that makes listings. They are made here where it cannot."""

    def __init__(self, subject: Subject, names: Sequence[str]) -> None:
        self._subject = subject
        self._names = names
        with tempfile.TemporaryFile() as given:
            pickle.dump((sys.path, subject, names), given)
            given.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vmjit.explain.worker"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )

    def listings(self) -> Made:
        output, _ = self._process.communicate()
        if self._process.returncode:
            return listings_of(self._subject, self._names)
        made: Made = pickle.loads(output)
        return made

    def end(self) -> None:
        """Leave nothing behind where this process was interrupted."""
        with self._process:
            self._process.kill()


def make_listings(subject: Subject, names: Sequence[str]) -> Made:
    """What `listings_of` gives; what was made before is taken from the cache."""
    kept = {name: kept_listing(subject, name) for name in names if TARGETS[name].slow}
    listings, missing = _made(subject, [name for name in names if kept.get(name) is None])
    for name in kept.keys() & listings.keys():
        keep_listing(subject, listings[name])
    listings |= {name: listing for name, listing in kept.items() if listing is not None}
    return {name: listings[name] for name in names if name in listings}, missing


def _made(subject: Subject, names: Sequence[str]) -> Made:
    """Listings that are made now, GPUs' code beside the rest where that is quicker."""
    here = [name for name in names if TARGETS[name].maker is None]
    makers = {TARGETS[name].maker for name in names} - {None}
    groups = [[name for name in names if TARGETS[name].maker == maker] for maker in sorted(map(str, makers))]
    more = core_count() - 1
    if not groups or not here or subject.region.size < _SMALL or not more:
        return listings_of(subject, names)
    shares = [[name for group in groups[i::more] for name in group] for i in range(min(more, len(groups)))]
    workers = [_Worker(subject, share) for share in shares]
    try:
        listings, missing = listings_of(subject, here)
        for worker in workers:
            made = worker.listings()
            listings |= made[0]
            missing |= made[1]
    finally:
        for worker in workers:
            worker.end()
    return listings, missing


def main() -> int:
    sys.path[:], subject, names = pickle.load(sys.stdin.buffer)
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # what compilers print is no listing
    output.write(pickle.dumps(listings_of(subject, names)))
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
