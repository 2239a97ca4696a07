"""Trains a model on each of two stacks, and lets each score images with both models: the results must be equal.

    cross_check.py OTHER_PYTHON

The Python that runs this script is one stack, OTHER_PYTHON the other. Exits with 1 if a byte of the output differs.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

REPOSITORY = Path(__file__).resolve().parents[2]
_IMAGES = 100


def main(other_python: str) -> None:
    pythons = {"this": sys.executable, "other": other_python}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_digits(folder / "images")

        def train(name: str) -> str:
            return _run(pythons[name], "run", "configs/digits.yaml", f"--set=root={folder / name}")

        def score(name: str, model: str) -> str:
            chosen = ("--model", f"{folder / model}/digits", "--format=jsonl")
            return _run(pythons[name], "score", str(folder / "images"), *chosen)

        with ThreadPoolExecutor(len(pythons)) as side_by_side:
            list(side_by_side.map(train, pythons))
            pairs = [(name, model) for model in pythons for name in pythons]
            all_scores = dict(zip(pairs, side_by_side.map(lambda pair: score(*pair), pairs), strict=True))
        for model in pythons:
            scores = {name: all_scores[name, model] for name in pythons}
            if scores["this"] != scores["other"]:
                sys.exit(f"the stacks score the model of the {model} one differently:\n{_first_difference(scores)}")
    print(f"{_IMAGES} images: both stacks give the models of both the same scores, regions and verdicts")


def _write_digits(folder: Path) -> None:
    folder.mkdir()
    for number, digit in enumerate(load_digits().images[:_IMAGES]):
        Image.fromarray(np.round(digit * 255 / 16).astype(np.uint8)).save(folder / f"{number:03}.png")


def _run(python: str, *arguments: str) -> str:
    command = [python, "-m", "pipeline", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _first_difference(scores: dict[str, str]) -> str:
    rows = zip(*(text.splitlines() for text in scores.values()), strict=True)
    return next(f"{this}\n{other}" for this, other in rows if this != other)


if __name__ == "__main__":
    main(*sys.argv[1:])
