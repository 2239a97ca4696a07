"""DICOM files become rescaled values, or pixels in their window; nothing else of them is kept or named."""

import io
import logging

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from images.decoding import UnreadableImageError, as_viewed, declared_size, page_count, shown
from images.reading import AS_STORED, EIGHT_BITS, Reading
from images.stored import from_file_bytes

RANDOM = np.random.RandomState(5)
STORED = RANDOM.randint(0, 4096, (6, 8)).astype("u2")
NAME = "Doe^Jane"
RANGED = Reading(depth=16, range=(-1000.0, 3000.0))


def file_of(stored, *, bits=12, photometric="MONOCHROME2", **tags):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.PatientID, dataset.InstitutionName = NAME, "4711", "St. Elsewhere"
    is_colour = stored.shape[-1] == 3
    dataset.Rows, dataset.Columns = stored.shape[-3:-1] if is_colour else stored.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3 if is_colour else 1), photometric
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim == 3 and not is_colour:
        dataset.NumberOfFrames = len(stored)
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.PixelData = stored.tobytes()
    content = io.BytesIO()
    pydicom.dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()


SCALED = {"RescaleSlope": 2, "RescaleIntercept": -1024}


def test_values_are_rescaled_for_a_range():
    content = file_of(STORED, **SCALED, WindowCenter=40, WindowWidth=400)
    assert np.array_equal(shown(content, RANGED).pixels[..., 0], STORED * np.float32(2) - 1024)
    assert declared_size(content) == (8, 6)
    stored = from_file_bytes(content, Reading(depth=16, range=(-2000, 8000)))
    assert stored.mean_intensity == pytest.approx((STORED.mean() * 2 - 1024 + 2000) / 10_000)


def test_each_frame_of_an_enhanced_file_is_rescaled_with_its_own_intercept():
    """Its window is the same for all."""
    window, of_all = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 401
    of_all.FrameVOILUTSequence = [window]
    of_each = []
    for intercept in (-1024, -1000):
        rescaling, of_frame = Dataset(), Dataset()
        rescaling.RescaleSlope, rescaling.RescaleIntercept = 2, intercept
        of_frame.PixelValueTransformationSequence = [rescaling]
        of_each.append(of_frame)
    groups = {"SharedFunctionalGroupsSequence": [of_all], "PerFrameFunctionalGroupsSequence": of_each}
    content = file_of(np.stack([STORED, STORED]), **groups)
    for frame, intercept in enumerate((-1024, -1000)):
        values = STORED * np.float32(2) + intercept
        assert np.array_equal(shown(content, RANGED, page=frame).pixels[..., 0], values)
        in_window = shown(content, Reading(depth=16), page=frame).pixels[..., 0]
        assert np.array_equal(in_window, np.round(((values + 160.5) / 400).clip(0, 1) * 65535))


@pytest.mark.parametrize(("photometric", "kind"), [("MONOCHROME1", "u2"), ("MONOCHROME2", "u2"), ("MONOCHROME2", "i2")])
def test_without_a_range_the_window_is_shown(photometric, kind):
    stored = (STORED.astype(int) - (2048 if kind == "i2" else 0)).astype(kind)
    content = file_of(stored, photometric=photometric, **SCALED, WindowCenter=[500, 1], WindowWidth=[3001, 2])
    # PS3.3, C.11.2.1.2.1: from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    share = np.clip((stored * 2.0 - 1024 - (499.5 - 1500)) / 3000, 0, 1)
    expected = 1 - share if photometric == "MONOCHROME1" else share
    assert np.abs(shown(content, Reading(depth=16)).pixels[..., 0] / 65535 - expected).max() < 1e-5
    assert np.array_equal(shown(content).pixels, shown(content, Reading(depth=16)).pixels >> 8)
    # Through the client, which does not know the model.
    for reading in (EIGHT_BITS, Reading(depth=16)):
        assert np.array_equal(shown(as_viewed(content, AS_STORED), reading).pixels, shown(content, reading).pixels)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 400}])
@pytest.mark.parametrize("reading", [EIGHT_BITS, RANGED, AS_STORED])
def test_inverted_signed_values_are_refused(window, reading):
    """Inverted in their type, -1 - s, they would leave the units of a range and become black images."""
    content = file_of((STORED.astype(int) - 2048).astype("i2"), photometric="MONOCHROME1", **SCALED, **window)
    with pytest.raises(UnreadableImageError, match="signed MONOCHROME1 values.*save it as MONOCHROME2, or export"):
        shown(content, reading)


def test_unsigned_values_without_a_window_have_the_scale_of_their_type():
    assert np.array_equal(
        shown(file_of(STORED), Reading(depth=16)).pixels[..., 0], np.round(STORED / 4095 * 65535).astype("u2")
    )
    inverted = shown(file_of(STORED, photometric="MONOCHROME1"), RANGED).pixels[..., 0]
    assert np.array_equal(inverted, 4095 - STORED.astype("f4"))
    with pytest.raises(UnreadableImageError, match="no fixed black and white"):
        shown(file_of(STORED, **SCALED))


def test_colour():
    colour = RANDOM.randint(0, 256, (6, 8, 3)).astype("u1")
    assert np.array_equal(shown(file_of(colour, bits=8, photometric="RGB")).pixels, colour)


def test_frames_are_pages():
    stack = RANDOM.randint(0, 4096, (3, 6, 8)).astype("u2")
    content = file_of(stack)
    assert page_count(content) == from_file_bytes(content).page_count == 3
    for number in range(3):
        assert np.array_equal(shown(content, RANGED, page=number).pixels[..., 0], stack[number].astype("f4"))


@pytest.mark.parametrize("frames", [-1, 2**31 - 1])
def test_a_file_cannot_claim_more_frames_than_it_has_bytes(frames):
    content = file_of(STORED, NumberOfFrames=frames)
    assert page_count(content) == 1
    with pytest.raises(UnreadableImageError, match="impossible number of frames"):
        shown(content, RANGED)


@pytest.mark.parametrize("cut", [140, 300, -20])
def test_nothing_about_the_patient_is_stored_or_logged(cut, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    content = file_of(STORED, **SCALED)
    assert NAME.encode() in content
    kept = [from_file_bytes(content, RANGED).encoded, as_viewed(content, AS_STORED)]
    with pytest.raises(UnreadableImageError) as raised:
        shown(content[:cut], RANGED)
    told = caplog.text + str(raised.value) + "".join(str(warning.message) for warning in recwarn)
    for secret in (NAME, "4711", "Elsewhere"):
        assert secret not in told
        assert not any(secret.encode() in file for file in kept)
