"""A plot of the cross-attention of one utterance, all layers side by side. It needs matplotlib
(the extra `plots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from asr.datasets.batching import Example
from asr.datasets.loading import Batch, Loader
from asr.inspection.attention import teacher_forced_attention
from asr.inspection.gather import token_label
from asr.inspection.png import installed_fonts, show_weights
from asr.model.interfaces import ShowsAttention
from asr.model_folder import Bundle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRIES = 20  # the plot is left out after so many unreadable utterances


def plot_attention(bundle: Bundle[Any], loader: Loader) -> Figure | None:
    """The cross-attention of one utterance of the loader's corpus, under teacher forcing with its own text.

    The weights are means over the heads. None without matplotlib, for a model that cannot show its attention,
    and when no utterance can be read. The bundle is left in evaluation mode.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return None
    if not isinstance(bundle.network, ShowsAttention):
        return None
    batch = choose_utterance(loader)
    return None if batch is None else draw(*attention_of(bundle, batch))


def choose_utterance(loader: Loader) -> Batch | None:
    """A typical utterance, alone in a batch, and the same at every call.

    Its duration is the nearest to the median. An utterance that cannot be read or has no text is replaced by
    the next one. None when there is none among the first tries.
    """
    durations = loader.corpus.durations
    distance = np.abs(durations - np.median(durations))
    for index in np.argsort(distance, kind="stable")[:TRIES].tolist():
        batch = loader.load([Example((index,), (0.0, 0.0), 1.0, (0, 0, index))])
        if batch.ids and batch.texts[0]:
            return batch
    return None


@torch.inference_mode()
def attention_of(bundle: Bundle[Any], batch: Batch) -> tuple[Tensor, list[str], float, str]:
    """Weights (n_layers, U, S) for the one utterance of a batch, labels of the U tokens, seconds, and a
    title.
    """
    network, device = bundle.eval().network, bundle.device
    ids = batch.tokens[0, : int(batch.token_lengths[0])].tolist()  # without padding
    memory = network.encode(*bundle.features(batch.waveforms.to(device), batch.lengths.to(device)))
    weights = teacher_forced_attention(bundle, ids, memory).mean(1)
    labels = [token_label(bundle.tokenizer, i) for i in ids] + ["EOS"]
    seconds = float(batch.lengths[0]) / bundle.features.config.sample_rate
    return weights, labels, seconds, f"{batch.ids[0]}: {batch.texts[0]}"


def draw(weights: Tensor, labels: Sequence[str], seconds: float, title: str) -> Figure:
    """Weights (n_layers, U, S) as a figure with one panel for each layer.

    The rows of a panel are the predicted tokens, its columns are time. The color scale follows the square
    root of the weights, so that figures of different steps can be compared and small weights are visible.
    """
    from matplotlib.figure import Figure

    fonts = installed_fonts()
    layers, rows, _ = weights.shape
    figure = Figure(figsize=(2 + 3 * layers, min(12, 1.5 + 0.2 * rows)), layout="constrained")
    panels = figure.subplots(1, layers, sharey=True, squeeze=False)[0]
    for number, (panel, layer) in enumerate(zip(panels, weights.float().cpu().numpy(), strict=True), 1):
        image = show_weights(panel, layer, (0, seconds, rows - 0.5, -0.5))
        panel.set_title(f"layer {number}")
        panel.set_xlabel("seconds")
    panels[0].set_yticks(range(rows), labels, fontfamily=fonts, parse_math=False)
    figure.colorbar(image, ax=panels, label="attention weight")
    figure.suptitle(title if len(title) <= 80 else f"{title[:77]}...", fontfamily=fonts, parse_math=False)
    return figure
