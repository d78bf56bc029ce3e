"""`vmjit cache`: the cache of compiled code on disk."""

from __future__ import annotations

from collections.abc import Sequence

from vmjit.cli.arguments import Parser, command_parser
from vmjit.cli.console import printable


def parser() -> Parser:
    made = command_parser(
        "cache",
        "Shows or clears the cache of compiled code. It lies in $VMJIT_CACHE_DIR, else in the user's cache folder.",
        "vmjit cache info\nvmjit cache clear",
    )
    made.add_argument("action", choices=("info", "clear"), help="info: place, files and bytes; clear: remove all files")
    return made


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    from vmjit.cache import DiskCache

    cache = DiskCache()
    files = cache.files()
    size = sum(file[1] for file in files)
    if options.action == "info":
        print(f"directory  {printable(str(cache.directory))}")
        print(f"files      {len(files):,}")
        print(f"bytes      {size:,} of at most {cache.limit:,}")
        return 0
    cache.clear()
    left = len(cache.files())
    removed = f"removed {len(files) - left:,} files from {printable(str(cache.directory))}"
    print(f"{removed}, {left:,} could not be removed" if left else removed)
    return 1 if left else 0
