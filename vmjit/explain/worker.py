"""Listings made by a second process, while this one makes others: compilers that take seconds, each on one core.

`python -m vmjit.explain.worker` reads a pickled subject and names of targets, and writes what `listings_of` gives.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

from vmjit.explain.listings import Listing
from vmjit.explain.targets import TARGETS, Subject, listings_of

Made = tuple[dict[str, Listing], dict[str, str]]

# Below this many instructions a process takes longer to start than it saves.
_SMALL = 100


def make_listings(subject: Subject, names: Sequence[str]) -> Made:
    """What `listings_of` gives, with GPUs' code made beside the rest where that is quicker."""
    apart = [name for name in names if TARGETS[name].gpu]
    here = [name for name in names if not TARGETS[name].gpu]
    if not apart or not here or subject.region.size < _SMALL or (os.cpu_count() or 1) < 2:
        return listings_of(subject, names)
    process = subprocess.Popen(
        [sys.executable, "-m", "vmjit.explain.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    with process:
        try:
            process.stdin.write(pickle.dumps((sys.path, subject, apart)))
            process.stdin.close()
            process.stdin = None
        except OSError:
            pass  # it has ended already; what it was for is made below
        listings, missing = listings_of(subject, here)
        output, _ = process.communicate()
    more: Made = pickle.loads(output) if process.returncode == 0 else listings_of(subject, apart)
    listings |= more[0]
    missing |= more[1]
    return {name: listings[name] for name in names if name in listings}, missing


def main() -> int:
    sys.path[:], subject, names = pickle.load(sys.stdin.buffer)
    output = sys.stdout.buffer
    sys.stdout = sys.stderr  # what compilers print is no listing
    output.write(pickle.dumps(listings_of(subject, names)))
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
