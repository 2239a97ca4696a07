import apache_beam as beam
import pytest
from apache_beam.transforms import core, userstate

from runtime.beam_signatures import remember_signatures


class Plain(beam.DoFn):
    def process(self, element, more=1):
        yield element + more


class Stateful(beam.DoFn):
    TOTAL = userstate.CombiningValueStateSpec("total", sum)
    STATE = beam.DoFn.StateParam(TOTAL)

    def process(self, element, total=STATE):
        total.add(element[1])
        yield total.read()


@pytest.fixture
def remembered(monkeypatch):
    """Beam's own function, replaced while the test runs."""
    own = core.get_function_args_defaults
    monkeypatch.setattr(core, "get_function_args_defaults", own)
    remember_signatures()
    return core.get_function_args_defaults


@pytest.mark.usefixtures("remembered")
def test_arguments_are_those_that_beam_finds_and_cannot_be_changed_by_a_caller():
    for _ in range(2):
        names, defaults = core.get_function_arguments(Plain(), "process")
        assert (names, defaults) == (["element", "more"], [1])
        names.clear()
        defaults.append("changed")


@pytest.mark.usefixtures("remembered")
def test_each_dofn_keeps_its_own_state():
    assert not userstate.is_stateful_dofn(Plain())
    assert userstate.get_dofn_specs(Stateful()) == ({Stateful.TOTAL}, set())
    assert not userstate.is_stateful_dofn(beam.ParDo(lambda element: [element]).fn)


def test_a_method_is_inspected_once_for_all_instances(remembered):
    for _ in range(3):
        userstate.get_dofn_specs(Plain())
    methods = [getattr(Plain, name) for name in dir(Plain)]
    assert Plain.process in remembered.known
    assert len(remembered.known) <= len(methods)
    remember_signatures()
    assert core.get_function_args_defaults is remembered
