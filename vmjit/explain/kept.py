"""Listings in the cache of compiled code: a region that is looked at again, with other inputs say, is there at once."""

from __future__ import annotations

import json
import zlib
from importlib import metadata

from vmjit.cache import cache_key, process_cache
from vmjit.explain.listings import Line, Listing
from vmjit.explain.targets import Subject
from vmjit.tiering import region_identity
from vmjit.translators.cpu import cpu_target
from vmjit.translators.vector_unit import vector_unit

# To be raised where what listings hold or how they are read changes.
_FORM = "1"

# What GPUs' code depends on besides what is in every key.
_PACKAGES = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-nvdisasm")


def _key(subject: Subject, name: str) -> str:
    regions = (subject.region, subject.group_region)
    return cache_key(
        "listing",
        (
            _FORM,
            name,
            *(region_identity(region) for region in regions),
            *(repr(sorted((pc, goals) for pc, goals in (region.returning or {}).items())) for region in regions),
            subject.registers.name,
            repr(subject.layout),
            repr(subject.assumed),
            subject.cuda,
            subject.amd,
            repr(vector_unit()),
            *(f"{package} {_version(package)}" for package in _PACKAGES),
            *cpu_target().identity,
        ),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def kept_listing(subject: Subject, name: str) -> Listing | None:
    """What was made of the same subject before, by the same tools."""
    data = process_cache().disk.get(_key(subject, name))
    if data is None:
        return None
    found = json.loads(zlib.decompress(data))
    lines = zip(found["lines"], found["pcs"], found["kinds"], strict=True)
    return Listing(name, found["title"], tuple(Line(text, pc, kind) for text, pc, kind in lines), found["facts"])


def keep_listing(subject: Subject, listing: Listing) -> None:
    """Keep what was made."""
    data = {
        "title": listing.title,
        "facts": dict(listing.facts),
        "lines": [line.text for line in listing.lines],
        "pcs": [line.pc for line in listing.lines],
        "kinds": [line.instruction for line in listing.lines],
    }
    process_cache().disk.put(_key(subject, listing.name), zlib.compress(json.dumps(data).encode(), 1))
