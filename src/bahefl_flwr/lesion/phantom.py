"""A procedural chest-CT phantom: the data set that needs no download. One axial slice with its lesion mask per (seed, index).

numpy and OpenCV only. Where slices are cached, and who gets which, is data.py's and partition.py's business. Lengths are in half
image widths (the image spans -1..1 both ways), grey values in 0..1 of the lung window, unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

POSITIVE_SHARE = 0.6
# Raise when the same (seed, index) gives another picture: cached slices of an older version are then left alone.
PHANTOM_VERSION = 1
# Domain tags, so that flags, scanners and slices of one seed are drawn independently.
_FLAGS, _SCANNER, _SLICE = 1, 2, 3
# Contrast of ground glass goes with 1 / difficulty; below this it would leave the window.
_EASIEST = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """How the scanner of one site makes pictures: what makes sites differ beyond their share of lesions.

    Attributes:
      noise: standard deviation, grey values. kernel: blur of the reconstruction, pixels at 256. gain, bias: of the grey values.
      field: size of the body in the image. table: the table is in the picture. circle: the corners are cut.
    """

    noise: float
    kernel: float
    gain: float
    bias: float
    field: float
    table: bool
    circle: bool


def scanner_of(seed: int, site: int) -> Scanner:
    """The scanner of a simulated site, always the same for equal arguments."""
    rng = np.random.default_rng([seed, _SCANNER, site])
    return Scanner(
        noise=0.035 * float(np.exp(rng.uniform(-0.5, 0.6))),
        kernel=0.42 + rng.uniform(-0.2, 0.4),
        gain=1 + rng.uniform(-0.12, 0.12),
        bias=rng.uniform(-0.05, 0.05),
        field=1 + rng.uniform(-0.1, 0.12),
        table=bool(rng.random() < 0.7),
        circle=bool(rng.random() < 0.4),
    )


def lesion_flags(seed: int, slices: int) -> Mask:
    """Which slices carry a lesion, shape (slices,): known without drawing, so that every site can compute the split alone."""
    return np.random.default_rng([seed, _FLAGS]).random(slices) < POSITIVE_SHARE


def render(
    seed: int, index: int, *, size_px: int, scanner: Scanner, lesion: bool, difficulty: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """One slice, equal for equal arguments (on other CPUs to within OpenCV's rounding).

    Args:
      size_px: side of the square image.
      lesion: draw lesions; the mask is then never empty.
      difficulty: 0 (bold lesions) to 1 (as faint and fuzzy as real ones).

    Returns:
      The image, uint8 (size, size), and its mask, uint8 {0, 1} (size, size).
    """
    rng = np.random.default_rng([seed, _SLICE, index])
    view = _View.draw(rng, size_px, scanner)
    inner = view.blob(0, 0, 0.74, 0.52, wobble=view.coarse, amount=0.02)
    lung = _lungs(view, inner)
    air = _parenchyma(view, lung)
    mask = np.zeros(lung.shape, np.bool_)
    if lesion:
        air, mask = _with_lesions(view, air, lung, max(difficulty, _EASIEST))
    tissue = _body(view, inner)
    image = tissue * (1 - lung) + air * lung
    return _acquired(view, _bones(view, image, inner, lung), scanner), mask.astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _View:
    """One slice being drawn: its random source, coordinates inside the patient, and two fields that wobble every contour."""

    rng: np.random.Generator
    size: int
    table_x: Field
    table_y: Field
    x: Field
    y: Field
    height: float  # 0 at the apex of the lungs, 1 at the diaphragm
    pixel: float  # one pixel, in the patient's coordinates
    coarse: Field
    fine: Field
    parenchyma: float  # grey value of healthy lung

    @staticmethod
    def draw(rng: np.random.Generator, size: int, scanner: Scanner) -> _View:
        """A patient on the table. What is drawn from `rng`, and in which order, is part of `PHANTOM_VERSION`."""
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        table_x, table_y = (a.astype(np.float32) for a in np.meshgrid(axis, axis))
        scale, turn = scanner.field * rng.uniform(0.98, 1.13), rng.uniform(-0.07, 0.07)
        dx, dy = table_x - rng.uniform(-0.04, 0.04), table_y - rng.uniform(-0.05, 0.05)
        x = ((dx * np.cos(turn) + dy * np.sin(turn)) / scale).astype(np.float32)
        y = ((dy * np.cos(turn) - dx * np.sin(turn)) / scale).astype(np.float32)
        coarse, fine = _smooth_noise(rng, size, 3), _smooth_noise(rng, size, 4)
        return _View(
            rng, size, table_x, table_y, x, y, rng.uniform(0.12, 1.0), 2 / size / scale, coarse, fine, rng.uniform(0.20, 0.29)
        )

    @property
    def edge(self) -> float:
        """Width of a soft anatomical edge."""
        return 2.4 * self.pixel

    def noise(self, cells: float, octaves: int = 1) -> Field:
        """Shape (size, size), zero mean, unit variance; `cells` is how many blobs fit across the image."""
        return _smooth_noise(self.rng, self.size, cells, octaves)

    def blob(
        self, cx: float, cy: float, rx: float, ry: float, *, turn: float = 0.0, wobble: Field | None = None, amount: float = 0.0
    ) -> Field:
        """Signed: positive inside an ellipse whose contour is moved by `amount` * `wobble`."""
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = ((self.x - cx) * c + (self.y - cy) * s) / rx, ((self.y - cy) * c - (self.x - cx) * s) / ry
        inside = 1 - np.sqrt(u * u + v * v)
        return _f32(inside if wobble is None else inside + amount * wobble)


def _f32(values: Any) -> Field:
    return np.asarray(values, np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 1) -> Field:
    """Zero mean, unit variance; a coarse grid raised cubically, each octave twice as fine and half as strong."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        grid = int(cells * 2**octave) + 3
        values = rng.standard_normal((grid, grid)).astype(np.float32)
        total += 0.5**octave * cv2.resize(values, (size, size), interpolation=cv2.INTER_CUBIC)
    return _f32((total - total.mean()) / (total.std() + 1e-6))


def _soft(signed: Any, width: float) -> Field:
    return _f32(1 / (1 + np.exp(-np.clip(signed / width, -30, 30))))


def _body(view: _View, inner: Field) -> Field:
    """Air, fat and muscle."""
    rng = view.rng
    body = _soft(view.blob(0, 0, rng.uniform(0.8, 0.9), rng.uniform(0.56, 0.66), wobble=view.coarse, amount=0.02), view.edge)
    fat, muscle = rng.uniform(0.66, 0.74), rng.uniform(0.86, 0.93)
    return _f32(0.015 + body * (fat + _soft(inner + 0.13, 2 * view.edge) * (muscle - fat)))


def _lungs(view: _View, inner: Field) -> Field:
    """Two lungs, cut by the rib cage, the heart and, near the diaphragm, the liver and the spleen. 0..1, shape (size, size)."""
    rng, z = view.rng, view.height
    tall, wide = 0.20 + 0.31 * np.sqrt(z), 0.17 + 0.17 * np.sqrt(z)
    heart_width = 0.16 + 0.18 * z * rng.uniform(0.7, 1.1)
    heart = view.blob(
        rng.uniform(0.02, 0.1),
        -0.05 + 0.1 * z,
        heart_width,
        0.16 + 0.16 * z,
        turn=rng.uniform(-0.4, 0.1),
        wobble=view.fine,
        amount=0.05,
    )
    lung = np.zeros_like(inner)
    for side in (-1, 1):
        rx, ry = wide * rng.uniform(0.92, 1.06), tall * rng.uniform(0.92, 1.06)
        turn = side * rng.uniform(-0.22, 0.05)
        shape = view.blob(
            side * (0.13 + wide * 0.98), rng.uniform(-0.04, 0.03), rx, ry, turn=turn, wobble=view.fine, amount=0.035
        )
        lung = _f32(np.maximum(lung, _soft(np.minimum(np.minimum(shape, inner * 1.2 + 0.02), -heart * 1.1 + 0.02), view.edge)))
    if z > 0.85 and rng.random() < 0.6:
        lung = _domed(view, lung)
    return lung


def _domed(view: _View, lung: Field) -> Field:
    rng = view.rng
    liver = view.blob(-0.36, -0.06, rng.uniform(0.12, 0.32), rng.uniform(0.12, 0.34), wobble=view.coarse, amount=0.1)
    spleen = view.blob(0.36, -0.1, rng.uniform(0.02, 0.24), rng.uniform(0.02, 0.26), wobble=view.coarse, amount=0.1)
    return _f32(lung * (1 - _soft(liver, view.edge)) * (1 - _soft(spleen, view.edge)))


def _parenchyma(view: _View, lung: Field) -> Field:
    """Healthy lung: texture, a gradient by gravity, vessels, bronchi and, at times, dependent atelectasis, which is no lesion."""
    rng = view.rng
    air = view.parenchyma + 0.03 * view.noise(6, 2) + np.float32(rng.uniform(0, 0.09)) * (view.y + 0.1)
    hila = [(side * rng.uniform(0.15, 0.22), rng.uniform(-0.02, 0.1)) for side in (-1, 1)]
    vessels = np.maximum(_vessel_tree(view, hila), _vessel_dots(view)) * rng.uniform(0.6, 1)
    air = air * (1 - vessels) + vessels * rng.uniform(0.75, 0.95)
    for x, y in [*hila, (0.0, -0.05)]:
        wall = rng.uniform(0.018, 0.04) * 1.35
        air = np.where(np.hypot(view.x - x, view.y - y) < wall, 0.85, air)
    if rng.random() < 0.35:
        depth = _depth(view, lung)
        low = _soft(view.y - rng.uniform(0.12, 0.3), 0.05)
        dependent = _soft(0.035 - depth, 0.012) * low * lung * rng.uniform(0.1, 0.4)
        air = air * (1 - dependent) + 0.6 * dependent
    return _f32(air)


def _depth(view: _View, lung: Field) -> Field:
    """Distance to the lung's border, 0 outside."""
    inside = (lung > 0.5).astype(np.uint8)
    if not inside.any():
        return np.zeros_like(lung)
    return _f32(cv2.distanceTransform(inside, cv2.DIST_L2, 3) * view.pixel)


def _vessel_dots(view: _View) -> Field:
    """Vessels that cross the slice: bright dots, the commonest false lesion."""
    rng, n = view.rng, view.size
    dots = np.zeros((n, n), np.uint8)
    for _ in range(rng.integers(40, 140)):
        x, y = (int(v) for v in rng.integers(0, n * 16, 2))
        radius = int(n / 16 * abs(rng.normal(0.5, 0.6))) + 6
        # Coordinates in 1/16 pixel (shift=4): at 64 px a vessel is thinner than a pixel.
        cv2.circle(dots, (x, y), radius, int(rng.integers(60, 200)), -1, cv2.LINE_AA, 4)
    return _f32(dots / 255)


def _vessel_tree(view: _View, hila: list[tuple[float, float]]) -> Field:
    """Vessels that run in the slice: branching, ever thinner lines from each hilum outwards."""
    rng = view.rng
    image = np.zeros((view.size, view.size), np.float32)
    branches = []
    for (x, y), outwards in zip(hila, (np.pi, 0.0), strict=True):
        for _ in range(rng.integers(3, 6)):
            angle, radius, length = outwards + rng.uniform(-1.35, 1.35), rng.uniform(0.008, 0.017), rng.uniform(0.1, 0.18)
            branches.append((x, y, angle, radius, length, 0))
    while branches:
        x, y, angle, radius, length, level = branches.pop()
        x, y, angle = _draw_vessel(view, image, x, y, angle, radius, length)
        for turn in (-1, 1):
            if level < 3 and rng.random() < 0.85:
                bend, shorter = turn * rng.uniform(0.25, 0.7), length * rng.uniform(0.6, 0.85)
                branches.append((x, y, angle + bend, radius * 0.68, shorter, level + 1))
    return image


def _draw_vessel(
    view: _View, image: Field, x: float, y: float, angle: float, radius: float, length: float
) -> tuple[float, float, float]:
    """Draw one branch into `image`; returns where it ends and in which direction."""
    points = [(x, y)]
    for _ in range(4):
        angle += view.rng.normal(0, 0.22)
        x, y = x + np.cos(angle) * length / 4, y + np.sin(angle) * length / 4
        points.append((x, y))
    line = ((np.array(points) + 1) * 0.5 * view.size * 16).astype(np.int32).reshape(-1, 1, 2)  # (points, 1, xy)
    width = radius * view.size / 2
    drawn = np.zeros(image.shape, np.uint8)
    cv2.polylines(drawn, [line], False, int(min(255, 255 * min(1, width + 0.25))), max(1, round(width)), cv2.LINE_AA, 4)
    np.maximum(image, _f32(drawn) / 255, out=image)
    return x, y, angle


def _with_lesions(view: _View, air: Field, lung: Field, difficulty: float) -> tuple[Field, Mask]:
    """Lung with ground-glass and consolidated lesions, mostly peripheral and posterior, and the mask an annotator would draw."""
    rng = view.rng
    alpha, density, mask = np.zeros_like(air), np.zeros_like(air), np.zeros(air.shape, np.bool_)
    rows, columns, cumulated = _lesion_prior(view, lung)
    severity = rng.random() ** 2
    wanted = 1 + rng.poisson(rng.uniform(0.2, 3.2))
    drawn = 0
    # A lesion too small for one mask pixel is not counted, or a slice flagged positive could have an empty mask.
    while drawn < wanted or not mask.any():
        j = min(int(np.searchsorted(cumulated, rng.random())), len(rows) - 1)
        grow = 1.0 + 0.5 * max(0, drawn - wanted)
        soft, level, outline = _lesion(view, rows[j], columns[j], severity, difficulty, grow)
        new = soft * lung > alpha
        density = np.where(new, level, density)
        alpha = np.maximum(alpha, soft * lung)
        mask |= outline * lung > 0.5
        drawn += 1
    return _f32(air * (1 - alpha) + np.maximum(air, density) * alpha), mask


def _lesion_prior(view: _View, lung: Field) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Pixels of the lung and the cumulated probability of a lesion's centre there."""
    rows, columns = np.nonzero(lung > 0.5)
    peripheral = np.exp(-_depth(view, lung)[rows, columns] / 0.06) + 0.12
    posterior = 1 + 0.9 * np.clip(view.y[rows, columns] * 2, -0.6, 1)
    weight = np.cumsum((peripheral * posterior).astype(np.float64))
    return rows, columns, weight / weight[-1]


def _lesion(view: _View, row: int, column: int, severity: float, difficulty: float, grow: float) -> tuple[Field, Field, Field]:
    """One lesion: its soft extent, its grey values, and its outline before the annotator's threshold."""
    rng = view.rng
    cx, cy = float(view.x[row, column]), float(view.y[row, column])
    radius = grow * float(np.clip(np.exp(rng.normal(-3.0 + 1.1 * severity, 0.55)), 0.014, 0.36))
    along = float(np.arctan2(cy, cx)) + np.pi / 2 + rng.uniform(-0.4, 0.4)
    rough = view.noise(float(np.clip(1.6 / radius, 3, 40)), 2)
    shape = view.blob(
        cx, cy, radius * rng.uniform(1, 1.9), radius * rng.uniform(0.65, 1.1), turn=along, wobble=rough, amount=0.28
    )
    soft = _soft(shape, rng.uniform(0.06, 0.22) * difficulty)
    jitter = _soft(shape + 0.04 * difficulty * view.noise(14), 0.05)
    return soft, _lesion_grey(view, difficulty), jitter


def _lesion_grey(view: _View, difficulty: float) -> Field:
    """Grey values: even and dense (consolidation), or faint and grainy (ground glass), at times with a net (crazy paving)."""
    rng = view.rng
    if rng.random() < 0.28:
        return _f32(rng.uniform(0.62, 0.88) + 0.02 * view.noise(12))
    grey = view.parenchyma + rng.uniform(0.13, 0.34) / difficulty + 0.05 * view.noise(24, 2)
    if rng.random() < 0.4:
        grey = grey + 0.10 * (np.abs(view.noise(30)) < 0.18)
    return _f32(grey)


def _bones(view: _View, image: Field, inner: Field, lung: Field) -> Field:
    """Ribs around the cage, and the spine."""
    rng = view.rng
    around = np.sin(np.arctan2(view.y, view.x) * rng.uniform(11, 15) + rng.uniform(0, 6)) > 0.35
    image = image + 0.25 * np.exp(-(((inner + 0.04) / 0.035) ** 2)) * around * (1 - lung)
    spine = _soft(view.blob(0, 0.34, 0.085, 0.085, wobble=view.fine, amount=0.08), view.edge)
    return _f32(image * (1 - spine) + spine * (0.97 + 0.04 * view.noise(30)))


def _acquired(view: _View, image: Field, scanner: Scanner) -> npt.NDArray[np.uint8]:
    """What the scanner makes of it: table, blur, correlated noise, gain, circular field of view."""
    if scanner.table:
        arc = np.abs(view.y - (0.72 + 0.12 * view.x * view.x))
        image = np.maximum(image, 0.75 * np.exp(-((arc / (1.5 * view.pixel)) ** 2)) * (np.abs(view.x) < 0.85))
    if scanner.kernel > 0.3:
        image = _f32(cv2.GaussianBlur(image, (0, 0), scanner.kernel * view.size / 256))
    white = view.rng.standard_normal(image.shape).astype(np.float32)
    correlated = white - 0.6 * cv2.GaussianBlur(white, (0, 0), 1.2)
    image = _f32((image + 1.2 * scanner.noise * correlated) * scanner.gain + scanner.bias)
    if scanner.circle:
        image = _f32(np.where(view.table_x**2 + view.table_y**2 > 0.98, 0, image))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
