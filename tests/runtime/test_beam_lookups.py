import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions
from apache_beam.transforms import core, userstate

from runtime.beam_lookups import remember_lookups


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
    """Beam's own functions, replaced while the test runs."""
    monkeypatch.setattr(core, "get_function_args_defaults", core.get_function_args_defaults)
    monkeypatch.setattr(PipelineOptions, "view_as", PipelineOptions.view_as)
    remember_lookups()
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
    remember_lookups()
    assert core.get_function_args_defaults is remembered


@pytest.mark.usefixtures("remembered")
def test_a_view_of_options_is_made_once_and_shows_their_present_values():
    options, others = PipelineOptions(["--no_pipeline_type_check"]), PipelineOptions([])
    view = options.view_as(TypeOptions)
    assert options.view_as(TypeOptions) is view
    assert not view.pipeline_type_check
    assert others.view_as(TypeOptions).pipeline_type_check
    options.view_as(StandardOptions).view_as(TypeOptions).pipeline_type_check = True
    assert options.view_as(TypeOptions).pipeline_type_check
    assert PipelineOptions(["--runner=Direct"], streaming=True).view_as(StandardOptions).streaming
