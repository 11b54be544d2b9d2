"""docs/decisions.md says what is so: its file loads, its receiver checks what we send, its keys are the model's."""

import re
import time
from pathlib import Path
from typing import Any

from stream.contracts.definitions import load_experiment
from stream.contracts.guardrails import Guardrail
from stream.decisions.book import Page
from stream.decisions.telling import content_of, headers_of
from tests.decisions.makers import a_decision
from tests.decisions.receiver import SECRET

TEXT = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text()
DURATIONS = {"hold_ms": "hold", "cooldown_ms": "cooldown"}


def block(language: str, number: int = 0) -> str:
    return str(re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[number])


def test_the_example_of_a_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "home-ranker.toml"
    path.write_text(block("toml") + block("toml", 1))
    experiment = load_experiment(path)
    assert [guardrail.label for guardrail in experiment.guardrails] == [
        "ctr-worse", "latency_ms-range", "errors-worse", "ctr-change-5m",
    ]  # fmt: skip
    assert experiment.promotion is not None


def test_the_receiver_of_the_docs_takes_what_is_sent_and_nothing_else() -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    content = content_of(Page(a_decision()))
    for secret, seconds_ago, is_right in ((SECRET, 0, True), ("another", 0, False), (SECRET, 900, False)):
        timestamp = int(time.time()) - seconds_ago
        headers = headers_of(Page(a_decision()), content, secret=secret, timestamp=timestamp)
        assert names["is_authentic"](headers, content, SECRET) is is_right
    assert not names["is_authentic"](headers, content + b" ", SECRET)


def test_every_key_of_a_guardrail_is_described() -> None:
    section = TEXT.partition("| key | default |")[2].partition("\n\n")[0]
    described = set(
        re.findall(r"`([a-z_]+)`", "\n".join(line.split("|")[1] for line in section.splitlines()[2:]))
    )
    assert described == {DURATIONS.get(name, name) for name in Guardrail.model_fields}
