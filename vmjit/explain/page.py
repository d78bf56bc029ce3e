"""An explanation as one page that opens from disk: the template with everything packed into it."""

from __future__ import annotations

import base64
import html
import json
import zlib
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vmjit.explain.explanation import Explanation

_HEIGHT = 720


def page(explanation: Explanation) -> str:
    """HTML. Lines are packed, and the page shows those in view: a region may have tens of thousands."""
    template = resources.files("vmjit.explain").joinpath("page.html").read_text(encoding="utf-8")
    packed = zlib.compress(json.dumps(explanation.object(), separators=(",", ":")).encode(), 9)
    return template.replace("@DATA@", base64.b64encode(packed).decode())


def framed(explanation: Explanation) -> str:
    """The page as a frame inside another."""
    source = html.escape(page(explanation), quote=True)
    return f'<iframe srcdoc="{source}" style="width:100%;height:{_HEIGHT}px;border:1px solid #8888"></iframe>'
