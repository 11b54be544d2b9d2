"""The flag file."""

import json
from pathlib import Path

import pytest

from stream.decisions.book import Page, Switch, Switches, switches_of
from stream.decisions.decision import Undone
from stream.decisions.flags import FlagFile, flag_document
from tests.decisions.makers import a_decision, an_experiment

TWO = an_experiment()
THREE = an_experiment(name="shelf", arms={"old": {}, "b": {}, "c": {}})
OFF = Switches("ranker", {"new": Switch("old", "ranker/ctr-worse/new/1")})


def test_while_nothing_is_switched_off_the_flag_does_not_interfere() -> None:
    flag = flag_document([TWO], [])["flags"]["ranker"]
    assert (flag["state"], flag["defaultVariant"]) == ("DISABLED", "old")
    assert flag["variants"] == {"old": "old", "new": "new"}
    assert "targeting" not in flag


def test_the_only_other_arm_switched_off_gives_everybody_the_control() -> None:
    flag = flag_document([TWO], [OFF])["flags"]["ranker"]
    assert (flag["state"], flag["defaultVariant"]) == ("ENABLED", "old")
    assert "targeting" not in flag
    assert flag["metadata"] == {"switchedOff": "new", "decisions": "ranker/ctr-worse/new/1"}


def test_other_arms_go_on_for_those_who_say_theirs() -> None:
    off = Switches("shelf", {"b": Switch("old", "shelf/ctr-worse/b/1")})
    flag = flag_document([THREE], [off])["flags"]["shelf"]
    assert flag["targeting"] == {"if": [{"==": [{"var": "arm"}, "b"]}, "old", {"var": "arm"}]}
    assert flag["defaultVariant"] == "old"


def test_an_experiment_whose_file_is_gone_stays_switched_off() -> None:
    flag = flag_document([], [OFF])["flags"]["ranker"]
    assert (flag["state"], flag["variants"]) == ("ENABLED", {"new": "new", "old": "old"})


def test_only_armed_firings_that_nobody_took_back_switch() -> None:
    undone = Page(a_decision(), Undone("ann", "", 1))
    dry, alert = Page(a_decision(is_armed=False)), Page(a_decision(fallback=None))
    assert switches_of("ranker", [undone, dry, alert]).arms == {}
    again = Page(a_decision(number=2))
    assert switches_of("ranker", [undone, again]).arms == {"new": Switch("old", "ranker/ctr-worse/new/2")}


def test_a_fallback_that_is_off_itself_leads_to_its_own() -> None:
    pages = [Page(a_decision(arm="c", fallback="b")), Page(a_decision(arm="b", fallback="a"))]
    assert {arm: s.fallback for arm, s in switches_of("ranker", pages).arms.items()} == {"b": "a", "c": "a"}
    circle = [Page(a_decision(arm="c", fallback="b")), Page(a_decision(arm="b", fallback="c"))]
    assert set(switches_of("ranker", circle).arms) == {"b", "c"}


def test_the_file_is_written_as_a_whole_and_only_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "flags.json"
    file = FlagFile(path, [TWO])
    assert file.show([])
    assert not file.show([])
    first = path.stat().st_ino
    assert file.show([OFF])
    assert path.stat().st_ino != first
    assert json.loads(path.read_text())["flags"]["ranker"]["state"] == "ENABLED"
    assert [entry.name for entry in tmp_path.iterdir()] == ["flags.json"]


def test_a_folder_that_is_gone_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        FlagFile(tmp_path / "gone" / "flags.json", [TWO]).show([])
