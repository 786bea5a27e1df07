"""What a PromQL expression reads: names of metrics and labels. Whether it is one, Prometheus says."""

from __future__ import annotations

import re

_TEXT = re.compile(r'"(?:\\.|[^"\\])*"')
_SELECTOR = re.compile(r"\{([^}]*)\}")
_LABEL_LIST = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME_OR_CALL = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?")
_WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool"}
_WORDS |= {"offset", "inf", "nan"}


def metrics(expression: str) -> set[str]:
    """Names of the metrics that it reads."""
    bare = _SELECTOR.sub("", _TEXT.sub('""', expression))
    bare = _RANGE.sub("", _LABEL_LIST.sub("", bare))
    found = {name for name, call in _NAME_OR_CALL.findall(bare) if not call}
    return {name for name in found if name.lower() not in _WORDS}


def labels(expression: str) -> set[str]:
    """Names of the labels that it selects or groups by."""
    bare = _TEXT.sub('""', expression)
    selected = ",".join(_SELECTOR.findall(bare))
    grouped = ",".join(names for _, names in _LABEL_LIST.findall(bare))
    return set(re.findall(r"[a-zA-Z_]\w*", selected + "," + grouped))
