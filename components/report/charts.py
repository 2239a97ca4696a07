"""The report's charts: scores and threshold, ROC and precision-recall, latent space, losses, distributions, defects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from components.report import svg
from components.report.defect_study import RELIABLE
from components.report.scored_images import Sample
from components.report.tables import number, percent

_CURVE_POINTS = 400
_PROJECTED = 600
_FEWEST_PROJECTED = 10
_PERPLEXITY = 30.0
_TSNE_STEPS = 500
_TSNE_DIMENSIONS = 50
_OTHERS = "other"

Chart = dict[str, Any]
"""`title`, `svg`, `legend` (names in the order of the series' colours), `note`."""
Values = npt.NDArray[np.float64]


def score_groups(sample: Sample) -> dict[str, Values]:
    """Scores of the images that are known to be normal, known to be anomalous, or neither."""
    groups = {
        "normal": sample.scores[sample.is_anomaly == 0],
        "anomalous": sample.scores[sample.is_anomaly == 1],
        "unknown": sample.scores[sample.is_anomaly == -1],
    }
    return {name: scores for name, scores in groups.items() if len(scores)}


def at_threshold(sample: Sample, threshold: float) -> dict[str, tuple[int, int]]:
    """Group -> (number of flagged images, number of images)."""
    return {name: (int((scores > threshold).sum()), len(scores)) for name, scores in score_groups(sample).items()}


def score_charts(sample: Sample, threshold: float) -> list[Chart]:
    """Histogram of the finite scores, with the threshold; none if no score is finite."""
    groups = {name: scores[np.isfinite(scores)] for name, scores in score_groups(sample).items()}
    groups = {name: scores for name, scores in groups.items() if len(scores)}
    if not groups:
        return []
    medians = ", ".join(f"{name} {number(float(np.median(scores)))}" for name, scores in groups.items())
    alt = f"Histogram of scores. Medians: {medians}. The threshold is {number(threshold)}."
    histogram = svg.histogram(groups, alt=alt, x_label="score", threshold=threshold)
    note = f"The dashed line is the threshold, {number(threshold)}."
    if left_out := int((~np.isfinite(sample.scores)).sum()):
        note += f" Not shown: {left_out:,} images whose score is not finite; they are alarms."
    return [{"title": "Scores of test images", "svg": histogram, "legend": list(groups), "note": note}]


def detection_charts(sample: Sample) -> list[Chart]:
    """ROC and precision-recall curves; none unless both kinds of images are known and their scores are finite."""
    known = sample.is_anomaly != -1
    truth, scores = sample.is_anomaly[known], sample.scores[known]
    if len(set(truth)) < 2 or not np.isfinite(scores).all():
        return []
    false_alarms, found, _ = roc_curve(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    auroc, aupr = roc_auc_score(truth, scores), average_precision_score(truth, scores)
    return [
        {
            "title": f"ROC curve: AUROC {auroc:.3f}",
            "svg": svg.line_chart(
                {"roc": _thinned(false_alarms, found)},
                unit_square=True,
                diagonal=True,
                x_label="false-alarm rate",
                y_label="anomalies found (recall)",
                alt=f"ROC curve, AUROC {auroc:.3f}",
            ),
            "note": "Share of anomalies found over the false-alarm rate, for every threshold. Dashed: chance.",
        },
        {
            "title": f"Precision-recall curve: average precision {aupr:.3f}",
            "svg": svg.line_chart(
                {"precision": _thinned(recall, precision)},
                unit_square=True,
                x_label="anomalies found (recall)",
                y_label="precision",
                alt=f"Precision-recall curve, average precision {aupr:.3f}",
            ),
            "note": f"By chance, precision would be {percent(truth.mean())}, the share of anomalous images.",
        },
    ]  # fmt: skip


def latent_charts(sample: Sample, seed: int) -> list[Chart]:
    """PCA and t-SNE (van der Maaten & Hinton 2008) of at most 600 latents, coloured by label."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(sample.scores))[:_PROJECTED])
    latents = sample.latents[rows]
    if len(rows) < _FEWEST_PROJECTED or latents.shape[1] < 2 or not np.isfinite(latents).all():
        return []
    names, groups = _label_groups([sample.labels[row] for row in rows])
    crosses = sample.is_anomaly[rows] == 1
    pca = PCA(min(_TSNE_DIMENSIONS, *latents.shape), random_state=seed)
    reduced = pca.fit_transform(latents)
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=_TSNE_STEPS, random_state=seed)
    explained = pca.explained_variance_ratio_[:2].sum()
    projections = {
        "PCA": (reduced[:, :2], f"The two axes explain {100 * explained:.0f} % of the variance."),
        "t-SNE": (tsne.fit_transform(reduced), "Nearby points are similar; distances between clusters mean little."),
    }
    charts = []
    for method, (points, note) in projections.items():
        title = f"Latent space by {method}"
        drawn = svg.scatter(points, groups, crosses, alt=f"{title}: {len(rows)} images coloured by label")
        note = f"Crosses are anomalies. {note}" if crosses.any() else note
        charts.append({"title": title, "svg": drawn, "legend": names, "note": note})
    return charts


def loss_charts(history: Mapping[str, Sequence[float]]) -> list[Chart]:
    """One chart per logged quantity: on training images and, if logged, on held-out images."""
    charts: list[Chart] = []
    drawn: list[Sequence[float]] = []
    for name in sorted(history, key=lambda name: (name != "loss", name)):
        values = history[name]
        if name.startswith("val_") or values in drawn:  # the loss may itself be the error
            continue
        drawn.append(values)
        curves = {"training": values, "held out": history.get(f"val_{name}", [])}
        curves = {split: curve for split, curve in curves.items() if curve}
        last = ", ".join(f"{split} {number(float(curve[-1]))}" for split, curve in curves.items())
        charts.append(
            {
                "title": name.replace("_", " ").capitalize(),
                "svg": svg.line_chart(
                    {split: (range(1, len(curve) + 1), curve) for split, curve in curves.items()},
                    alt=f"{name} over {len(values)} epochs; at the end: {last}", x_label="epoch", y_label=name,
                ),
                "legend": list(curves),
                "note": f"After {len(values)} epochs: {last}.",
            }
        )  # fmt: skip
    return charts


def distribution_chart(title: str, curves: Mapping[str, tuple[list[float], list[float]]]) -> Chart:
    """Distribution of a feature in each split."""
    alt = f"Distribution of {title} in {', '.join(curves)}"
    drawn = svg.line_chart(curves, alt=alt, x_label=title, y_label="share of images")
    return {"title": title.capitalize(), "svg": drawn, "legend": list(curves), "note": ""}


def defect_chart(kind: str, sizes: Sequence[float], found: Sequence[float]) -> Markup:
    """Share of images in which a defect was found, over its size."""
    pairs = ", ".join(f"{100 * f:.0f} % at size {100 * s:.3g} %" for s, f in zip(sizes, found, strict=True))
    return svg.rate_chart(sizes, found, target=RELIABLE, alt=f"Share of images with {kind} found: {pairs}")


def _label_groups(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """(group names, group number of each label): a group for each of the most frequent labels, one for the rest."""
    counts = {label: labels.count(label) for label in set(labels)}
    by_frequency = sorted(counts, key=lambda label: (-counts[label], label))
    many = len(by_frequency) > svg.SERIES
    named = sorted(by_frequency[: svg.SERIES - 1] if many else by_frequency)
    numbers = {label: number_ for number_, label in enumerate(named)}
    names = [label or "(no label)" for label in named] + ([_OTHERS] if many else [])
    return names, [numbers.get(label, len(named)) for label in labels]


def _thinned(x: Values, y: Values) -> tuple[list[float], list[float]]:
    """A few hundred points of a curve, including the first and the last."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CURVE_POINTS)).round().astype(int))
    return x[kept].tolist(), y[kept].tolist()
