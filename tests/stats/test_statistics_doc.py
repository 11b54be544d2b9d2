import re
from pathlib import Path

from stream.stats.reasons import NoInterval, NoSampleRatio

DOC = Path(__file__).parents[2] / "docs" / "statistics.md"


def test_every_reason_is_in_the_docs_and_no_other() -> None:
    section = DOC.read_text().partition("## No figure")[2]
    names = list(dict.fromkeys([*NoInterval, *NoSampleRatio]))
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == names
