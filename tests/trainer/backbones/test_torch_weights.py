"""The reader of PyTorch's files returns the tensors that were written, and executes and admits nothing else."""

import contextlib
import copy
import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from trainer.backbones.errors import BackboneError
from trainer.backbones.torch_weights import read_weights

NUMBERS = np.arange(24, dtype="<f4") / 7


class Named:
    """Pickled as the name of a global, whether or not this process has it."""

    def __init__(self, module, name):
        self.module, self.name = module, name


ORDERED = Named("collections", "OrderedDict")


class Call:
    """Pickled as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Storage:
    """Pickled as PyTorch's reference to a storage."""

    def __init__(self, kind, key, length):
        self.kind, self.key, self.length = kind, key, length


class Writer(pickle._Pickler):
    """Writes as torch.save does: globals by their names, storages as persistent identifiers."""

    def __init__(self, stream, view):
        super().__init__(stream, protocol=2)
        self.view = view

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", Named("torch", value.kind), value.key, "cpu", value.length, *self.view)
        return None

    def save_named(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    dispatch = {**pickle._Pickler.dispatch, Named: save_named}

    def save_reduce(self, function, arguments, *rest, **named):
        if isinstance(function, Named):
            self.save(function)
            self.save(arguments)
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(function, arguments, *rest, **named)


def pickled(value, view=()):
    stream = io.BytesIO()
    Writer(stream, view).dump(value)
    return stream.getvalue()


def tensor(size, strides, offset=0, *, key="7", length=24, kind="FloatStorage"):
    rebuild = Named("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, Storage(kind, key, length), offset, size, strides, False, OrderedDict())


def legacy(state, storages=None, *, little_endian=True):
    """The layout before PyTorch 1.6."""
    storages = {"7": NUMBERS} if storages is None else storages
    content = pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + pickled({"little_endian": little_endian})
    content += pickled(state, (None,)) + pickled(list(storages))
    return content + b"".join(struct.pack("<q", len(numbers)) + numbers.tobytes() for numbers in storages.values())


def archive(state, storages=None, compression=zipfile.ZIP_STORED, byteorder="little"):
    """The layout since PyTorch 1.6."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as written:
        written.writestr("weights/data.pkl", pickled(state))
        written.writestr("weights/byteorder", byteorder)
        for key, numbers in ({"7": NUMBERS} if storages is None else storages).items():
            written.writestr(f"weights/data/{key}", numbers.tobytes())
    return stream.getvalue()


@pytest.fixture
def read(tmp_path):
    def read_content(content):
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_weights(path)

    return read_content


def refusal(read, content):
    with pytest.raises(BackboneError) as raised:
        read(content)
    assert "weights.pth" in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("layout", [legacy, archive])
def test_a_transposed_tensor_with_an_offset_is_read_as_it_was(read, layout):
    state = OrderedDict(kernel=tensor((3, 5), (1, 3), 4), whole=tensor((2, 3, 4), (12, 4, 1)), number=tensor((), (), 9))
    found = read(layout(state))
    assert list(found) == ["kernel", "whole", "number"]
    assert found["kernel"].tolist() == NUMBERS[4:19].reshape(5, 3).T.tolist()
    assert found["whole"].tolist() == NUMBERS.reshape(2, 3, 4).tolist()
    assert found["number"].tolist() == NUMBERS[9]


@pytest.mark.parametrize("layout", [legacy, archive])
def test_every_storage_keeps_its_type(read, layout):
    kinds = {"Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1"}
    state = {kind: tensor((3,), (1,), key=kind, length=3, kind=f"{kind}Storage") for kind in kinds}
    found = read(layout(state, {kind: np.array([1, 2, 100], dtype) for kind, dtype in kinds.items()}))
    assert {kind: (values.dtype.str.replace("|", ""), values.tolist()) for kind, values in found.items()} == {
        kind: (np.dtype(dtype).str.replace("|", ""), [1, 2, 100]) for kind, dtype in kinds.items()
    }


def test_an_attribute_of_the_dictionary_as_modules_write_it_is_ignored(read):
    state = OrderedDict(kernel=tensor((24,), (1,)))
    state._metadata = OrderedDict(version=1)
    assert read(legacy(state))["kernel"].tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("layout", [legacy, archive])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Call(Named("posix", "system"), f"touch {mark}"), "posix.system"),
        (lambda mark: Call(Named("builtins", "eval"), f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: {"kernel": [Call(ORDERED, [("a", Call(Named("os", "mkdir"), str(mark)))])]}, "os.mkdir"),
        (lambda mark: Call(Named("builtins", "getattr"), ORDERED, "fromkeys"), "builtins.getattr"),
        (lambda mark: Call(Named("torch", "load"), str(mark)), "torch.load"),
        (lambda mark: Call(Named("torch._utils", "_rebuild_parameter"), 1), "torch._utils._rebuild_parameter"),
        (lambda mark: Call(Named("collections", "OrderedDict.fromkeys"), 1), "collections.OrderedDict.fromkeys"),
        (lambda mark: tensor((3,), (1,), kind="BFloat16Storage"), "torch.BFloat16Storage"),
    ],
)
def test_a_name_that_describes_no_tensor_is_refused_and_nothing_runs(read, tmp_path, layout, call, name):
    mark = tmp_path / "mark"
    assert f"refused the name {name};" in refusal(read, layout(call(mark)))
    assert not mark.exists()


def test_a_hostile_first_pickle_is_refused_though_python_would_run_it(read, tmp_path):
    mark = tmp_path / "mark"
    content = pickled(Call(Named("posix", "system"), f"touch {mark}"))
    assert "posix.system" in refusal(read, content)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()


def test_a_pickle_cannot_change_what_rebuilds_tensors(read):
    """BUILD sets attributes on any object, hence on a function that find_class returned."""
    build = pickle.PROTO + b"\x02" + pickle.GLOBAL + b"torch._utils\n_rebuild_tensor_v2\n"
    content = legacy({})
    hostile = build + pickle.EMPTY_DICT + pickled("x")[2:-1] + pickle.NONE + pickle.SETITEM + pickle.BUILD + pickle.STOP
    assert content.count(pickled({}, (None,))) == 1
    refusal(read, content.replace(pickled({}, (None,)), hostile))
    assert read(legacy({"kernel": tensor((24,), (1,))}))["kernel"].tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("layout", [legacy, archive])
@pytest.mark.parametrize(
    ("size", "strides", "offset"),
    [
        ((24,), (1,), 1),
        ((4, 6), (7, 1), 0),
        ((2,), (24,), 0),
        ((1,), (1,), 24),
        ((1,), (1,), 2**62),
        ((2,), (2**62,), 0),
        ((1_000_000_000, 1_000_000), (0, 0), 0),
        ((25,), (0,), 0),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(read, layout, size, strides, offset):
    message = refusal(read, layout({"kernel": tensor(size, strides, offset)}))
    assert f"kernel: size {size}, strides {strides} and offset {offset} reach beyond the 24 numbers" in message


@pytest.mark.parametrize(
    ("size", "strides", "offset"),
    [
        ((-1,), (1,), 0),
        ((3,), (-1,), 5),
        ((3,), (1,), -1),
        ((3, 3), (1,), 0),
        ((1,) * 9, (1,) * 9, 0),
        ((2.0,), (1,), 0),
    ],
)
def test_sizes_strides_and_offsets_are_natural_numbers(read, size, strides, offset):
    assert "refused a tensor of" in refusal(read, legacy({"kernel": tensor(size, strides, offset)}))


@pytest.mark.parametrize("length", [-1, 25, 2**62, True, "24"])
def test_a_storage_with_an_absurd_length_is_refused(read, length):
    assert "storage" in refusal(read, legacy({"kernel": tensor((3,), (1,), length=length)}))
    assert "storage" in refusal(read, archive({"kernel": tensor((3,), (1,), length=length)}))


@pytest.mark.parametrize(("size", "strides", "offset"), [((1,), (2**62,), 0), ((0, 2**40, 2**40), (1, 1, 1), 0)])
def test_a_dimension_that_no_array_can_have_is_refused(read, size, strides, offset):
    assert "refused" in refusal(read, legacy({"kernel": tensor(size, strides, offset)}))


def test_overlapping_members_of_an_archive_cannot_fill_the_memory(read, tmp_path):
    """Two entries of the directory for the same bytes, each as long as the file."""
    path, name = tmp_path / "large.pth", "weights/data/a"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr(name, bytes(10_000))
        written.filelist.append(copy.copy(written.filelist[0]))
        written.filelist[1].filename = "weights/data/b"
    assert "an archive whose members overlap" in refusal(read, path.read_bytes())


def test_a_message_quotes_only_the_beginning_of_a_long_name(read):
    assert len(refusal(read, legacy({"x" * 100_000: 1}))) < 1_500


def test_an_empty_tensor_has_no_numbers_wherever_it_begins(read):
    assert read(legacy({"none": tensor((0, 3), (3, 1), 2**70)}))["none"].shape == (0, 3)


@pytest.mark.parametrize("layout", [legacy, archive])
def test_a_truncated_file_is_refused_wherever_it_ends(read, layout):
    content = layout({"kernel": tensor((24,), (1,))})
    for length in range(0, len(content), 7):
        refusal(read, content[:length])


@pytest.mark.parametrize("layout", [legacy, archive])
def test_a_file_with_any_byte_changed_is_read_or_refused(read, layout):
    content = layout({"kernel": tensor((3, 5), (1, 3), 4)})
    for position in range(len(content)):
        for change in (1, 0x80, 0xFF):
            changed = bytearray(content)
            changed[position] ^= change
            with contextlib.suppress(BackboneError):
                assert read(bytes(changed)) is not None


def test_a_storage_of_another_type_than_first_declared_is_refused(read):
    state = {"a": tensor((24,), (1,), kind="IntStorage"), "b": tensor((24,), (1,))}
    assert "a, whose storage 7 is not in the file with its type" in refusal(read, legacy(state))


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b"not a pickle", "a damaged or truncated pickle at byte 0"),
        (pickled(5), "a file that does not begin as PyTorch's do"),
        (legacy({}, little_endian=False), "little-endian"),
        (archive({}, byteorder="big"), "little-endian"),
        (archive({}, compression=zipfile.ZIP_DEFLATED), "compressed members"),
        (legacy([1, 2]), "a list instead of a dictionary of tensors"),
        (legacy({"epoch": 3}), "the entry 'epoch', which is a int instead of a tensor"),
        (legacy({1: tensor((3,), (1,))}), "the entry 1"),
        (legacy({"kernel": tensor((3,), (1,), key="other", length=3)}), "a storage '7' that belongs to no tensor"),
        (legacy({"kernel": tensor((3,), (1,), key="other", length=3)}, {}), "storage other is not in the file"),
        (archive({"kernel": tensor((3,), (1,), key="../7", length=3)}), "storage ../7"),
        (b"\x80\x02r\xff\xff\xff\xffN.", "a pickle with more than 1,000,000 objects"),
    ],
)
def test_what_is_refused_is_named(read, content, refused):
    assert refused in refusal(read, content)


BEGINNING = pickled(0x1950A86A20F9469CFC6C) + pickled(1001)
DEEP_LIST = b"\x80\x02" + 100_000 * b"]" + 99_999 * b"a" + b"."
"""A pickle of lists within lists."""


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (BEGINNING + DEEP_LIST, "protocol 1001 of system [[[[[[[...]]]]]]], instead"),
        (BEGINNING + pickled({"little_endian": True}) + pickled({}) + DEEP_LIST, "a storage [[[[[[[...]]]]]]] that"),
        (BEGINNING + pickled({"little_endian": True}) + DEEP_LIST, "a list instead of a dictionary of tensors"),
        (b"\x80\x02})" + 5_000 * b"\x85" + b"K\x01s.", "the entry (((((((...),),),),),),), which is a int"),
        (b"\x80\x02})" + 1_000_000 * b"\x85" + b"K\x01s.", "a pickle with more than 20,000 tuples"),
    ],
)
def test_objects_within_objects_are_refused_however_deep(read, content, refused):
    """Neither the message nor the key of a dictionary exhausts the stack."""
    beginning = b"" if content.startswith(BEGINNING) else BEGINNING + pickled({"little_endian": True})
    assert refused in refusal(read, beginning + content)


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(BackboneError, match="cannot read the weights .*absent.pth: No such file"):
        read_weights(tmp_path / "absent.pth")


def test_the_hand_written_files_are_what_they_pretend_to_be():
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(pickled({"a": tensor((3,), (1,))}, (None,)))]
    assert {"GLOBAL", "BINPERSID", "REDUCE"} <= set(opcodes)
