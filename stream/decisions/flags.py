"""The flag file: which arms are switched off, in the format of flagd (https://flagd.dev/reference/flag-definitions/).

One flag per experiment, its variants are the arms. While nothing is switched off the flag is DISABLED: a service that
asks with its own choice as the default gets that choice. Once an arm is switched off the flag is ENABLED and gives the
fallback; where other arms go on, those who pass theirs as `arm` in the evaluation context keep it.
"""

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stream.contracts.definitions import Experiment
from stream.decisions.book import Switches

_SCHEMA = "https://flagd.dev/schema/v0/flags.json"


def flag_document(experiments: Iterable[Experiment], switched: Iterable[Switches]) -> dict[str, Any]:
    """The file's content: a flag for every declared experiment, and for each that has something switched off."""
    off = {switches.experiment: switches for switches in switched}
    declared = {experiment.name: experiment for experiment in experiments}
    flags = {
        name: _flag(declared.get(name), off.get(name, Switches(name, {})))
        for name in sorted({name for name, known in declared.items() if known.arms} | off.keys())
    }
    return {"$schema": _SCHEMA, "flags": flags}


def _flag(experiment: Experiment | None, switches: Switches) -> dict[str, Any]:
    off = switches.arms
    arms = set(experiment.arms) if experiment else set()
    arms |= off.keys() | {switch.fallback for switch in off.values()}
    control = experiment.control_among(arms) if experiment else None
    fallbacks = sorted({switch.fallback for switch in off.values()})
    flag: dict[str, Any] = {
        "state": "ENABLED" if off else "DISABLED",
        "variants": {arm: arm for arm in sorted(arms)},
        "defaultVariant": fallbacks[0] if fallbacks else control or min(arms),
    }
    if off and arms - off.keys() - set(fallbacks):
        flag["targeting"] = _targeting(switches)
    flag["metadata"] = {
        "switchedOff": ", ".join(sorted(off)),
        "decisions": ", ".join(off[arm].decision for arm in sorted(off)),
    }
    return flag


def _targeting(switches: Switches) -> dict[str, Any]:
    """The fallback for those in a switched-off arm, their own arm for others, nothing for those who do not say."""
    cases: list[Any] = []
    for arm, switch in sorted(switches.arms.items()):
        cases += [{"==": [{"var": "arm"}, arm]}, switch.fallback]
    return {"if": [*cases, {"var": "arm"}]}


class FlagFile:
    """Keeps one file up to date; a reader sees the old content or the new one, never a part."""

    def __init__(self, path: Path, experiments: Iterable[Experiment]) -> None:
        self._path = path
        self._experiments = tuple(experiments)

    def show(self, switched: Iterable[Switches]) -> bool:
        """Write the file if it says anything else; whether it did. Raises OSError."""
        document = flag_document(self._experiments, switched)
        content = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
        if self._path.is_file() and self._path.read_bytes() == content:
            return False
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            draft.unlink(missing_ok=True)
        return True
