"""The page is self-contained and escaped, and its images hold the values."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from inspection_helpers import model, recording
from PIL import Image

from asr.inspection.cost import model_cost
from asr.inspection.gather import gather
from asr.inspection.images import MAGMA, VIRIDIS, Scale, data_url, envelope, palette
from asr.inspection.page import _words, page
from asr.inspection.png import write_figures
from asr.kinds import DECODERS, ENCODERS
from asr.model.interfaces import ShowsAttention, ShowsSelfAttention

WEIRD = '<one>&"two"\n'


class Collector(HTMLParser):
    """The elements of a page, with their attributes and the text inside them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_data(self, data):
        self.text.append((self.open[-1] if self.open else "", data))


def values_of(attributes):
    """The values of an image as the page's script reads them."""
    image = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))).convert("RGB")
    colors = palette(VIRIDIS if attributes["data-colors"] == "viridis" else MAGMA).tolist()
    index = {tuple(color): i for i, color in reversed(list(enumerate(colors)))}
    pixels = np.asarray(image).reshape(-1, 3).tolist()
    indices = np.array([index[tuple(pixel)] for pixel in pixels])
    low, high, power = (float(attributes[f"data-{key}"]) for key in ("low", "high", "power"))
    return low + (high - low) * (indices.reshape(image.height, image.width) / 255) ** power


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    sound = recording(tmp_path_factory.mktemp("audio") / "a<b>&.wav")
    return gather(model(), sound, reference=WEIRD, model="<m>")


@pytest.fixture(scope="module")
def text(inspected):
    return "".join(page(inspected))


@pytest.fixture(scope="module")
def parsed(text):
    return Collector(text)


def images(parsed, kind):
    return [a for tag, a in parsed.elements if tag == "img" and a.get("data-kind") == kind]


def test_the_page_loads_nothing_from_elsewhere(text, parsed):
    outside = re.sub(r'"data:[^"]*"', "", text)
    assert len(outside) < len(text) / 2 and not re.search(r"https?:|@import|url\(", outside)
    for _, attributes in parsed.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")


def test_text_is_escaped_everywhere(inspected, text, parsed):
    assert inspected.text == '<one>&"two"'
    assert [token.label for token in inspected.spoken] == list('<one>&"two"')
    tags = {tag for tag, _ in parsed.elements}
    assert "one" not in tags and "m" not in tags and tags.isdisjoint({"script src"})
    paragraphs = [data for tag, data in parsed.text if tag == "p"]
    assert '<one>&"two"' in paragraphs
    data = next(data for tag, data in parsed.text if tag == "script" and data.startswith('{"start"'))
    assert "<" not in data
    assert [label for label, *_ in json.loads(data)["tokens"]] == [*'<one>&"two"', "EOS"]


def test_every_token_is_in_the_row_in_the_table_and_beside_the_attention(inspected, parsed):
    for tag in ("i", "tr"):
        positions = [int(a["data-token"]) for t, a in parsed.elements if t == tag and "data-token" in a]
        assert positions == list(range(len(inspected.spoken) + (tag == "tr")))
    labels = [token.label for token in inspected.tokens]
    assert [data for tag, data in parsed.text if tag == "b" and data in set(labels)].count("o") == 4
    spans = [data for tag, data in parsed.text if tag == "span"]
    joined = "\n".join(spans)
    assert "\n".join(labels) in joined


def test_the_images_hold_the_weights(inspected, parsed):
    for kind, layers in (("cross", inspected.cross_attention), ("self", inspected.self_attention)):
        found = images(parsed, kind)
        expected = [weights for heads in layers for weights in heads.weights]
        if kind == "cross":
            mean = np.mean([heads.weights.mean(0) for heads in layers], 0)
            expected.insert(0, mean)
        assert len(found) == len(expected)
        for attributes, weights in zip(found, expected, strict=True):
            rounding = 1.1 * np.sqrt(weights.max() * float(attributes["data-high"])) / 255
            assert np.abs(values_of(attributes) - weights).max() < rounding
    (ctc,) = images(parsed, "posterior")
    assert np.allclose(values_of(ctc), inspected.posteriors[0].values, atol=0.005)
    assert ctc["data-number"] == "0"


def test_the_sound_in_the_page_is_the_segment(inspected, parsed):
    (audio,) = [a for tag, a in parsed.elements if tag == "audio"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["src"].partition(",")[2])))
    assert rate == 16000 and np.allclose(samples, inspected.samples, atol=1e-4)


def test_the_formulas_and_the_values_are_in_the_page(inspected, text):
    assert "nats" in text and "|k/(K&minus;1) &minus; q/(Q&minus;1)|" in text
    for heads in (*inspected.cross_attention, *inspected.self_attention):
        for value in (*heads.entropy, *heads.diagonality):
            assert f">{value:.2f}</td>" in text


def test_a_model_without_a_decoder_has_a_page_without_cross_attention(tmp_path):
    found = gather(model(ctc_weight=1), recording(tmp_path / "a.wav"), reference="six")
    text = "".join(page(found))
    assert 'id="cross"' not in text and 'id="self"' in text
    assert "<li>No cross-attention: this model has no decoder" in text
    assert 'data-kind="cross"' not in text


def test_a_page_of_an_empty_text_is_whole(tmp_path):
    found = gather(model(), recording(tmp_path / "a.wav"), reference="")
    text = "".join(page(found))
    assert "(no text)" in text and text.endswith("</body></html>\n")
    assert len(images(Collector(text), "cross")) == 5


def test_a_posterior_without_a_likely_symbol_has_a_row(tmp_path):
    """One in 150 is below the 1 % that a symbol needs for a row."""
    pytest.importorskip("matplotlib")
    bundle = model(characters="".join(map(chr, range(0x4E00, 0x4E00 + 150))))
    for parameter in bundle.network.ctc_head.parameters():
        parameter.data.zero_()
    found = gather(bundle, recording(tmp_path / "a.wav", 0.5), reference="")
    assert len(found.posteriors[0].symbols) == 1
    text = "".join(page(found))
    assert f"{found.posteriors[0].left_out} less likely symbols have no row" in text
    write_figures(found, tmp_path)


def test_ten_seconds_with_sixteen_heads_stay_below_three_megabytes(tmp_path):
    bundle = model(n_heads=4, encoder={"n_layers": 4}, decoder={"n_layers": 4})
    found = gather(bundle, recording(tmp_path / "a.wav", 10.0), reference="one two six " * 9)
    assert len("".join(page(found))) < 3e6


def test_scales_and_palettes():
    scale = Scale(-2.0, 6.0, 2.0)
    assert scale.index(np.array([-3.0, -2.0, 0.0, 6.0, 7.0])).tolist() == [0, 0, 128, 255, 255]
    assert Scale(1.0, 1.0).index(np.array([1.0])).tolist() == [0]
    for stops in (VIRIDIS, MAGMA):
        colors = palette(stops)
        assert len({tuple(color) for color in colors.tolist()}) >= 254
        assert bytes(colors[0]).hex() == stops[0] and bytes(colors[-1]).hex() == stops[-1]
    assert data_url(np.zeros((2, 3)), Scale(0, 1), VIRIDIS).startswith("data:image/png;base64,")


def test_the_envelope_keeps_every_extreme():
    samples = np.random.default_rng(0).standard_normal(1001)
    low, high = envelope(samples, 50)
    assert len(low) == 50 and low.min() == samples.min() and high.max() == samples.max()
    assert [each.tolist() for each in envelope(samples[:3], 50)] == [samples[:3].tolist()] * 2


def test_words_begin_after_spaces(tmp_path):
    found = gather(model(), recording(tmp_path / "a.wav"), reference="one two")
    words = _words(found.spoken)
    assert [word for word, _, _ in words] == ["one", "two"]
    assert words[0][1:] == (found.spoken[0].start, found.spoken[2].end)
    assert words[1][1:] == (found.spoken[4].start, found.spoken[6].end)
    assert _words(found.spoken[:3]) == []  # without a space nothing tells words


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("decoder", [*DECODERS, None])
def test_every_kind_of_encoder_and_decoder_has_a_page_and_a_cost(encoder, decoder, tmp_path):
    parts = {"encoder": {"kind": encoder}, "decoder": {"kind": decoder} if decoder else {}}
    bundle = model(ctc_weight=0.3 if decoder else 1, **parts)
    found = gather(bundle, recording(tmp_path / "a.wav", 1.0), reference="six one")
    text = "".join(page(found))
    layers = (*found.cross_attention, *found.self_attention)
    assert text.count('class="matrix"') == 2 + bool(found.cross_attention) + sum(
        len(h.weights) for h in layers
    )
    assert text.count("<li>") == len(found.lacks)
    assert bool(found.cross_attention) == isinstance(bundle.network, ShowsAttention)
    assert bool(found.self_attention) == isinstance(bundle.network, ShowsSelfAttention)
    cost = model_cost(bundle, seconds=1.0)
    assert all(part.flops > 0 for part in cost.network.parts)
