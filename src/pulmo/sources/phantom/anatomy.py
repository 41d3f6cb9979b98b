"""The anatomy of the phantom: how much each ray of a drawn chest film is weakened on its way through the child.

Lengths are in units of half the inner width of the thorax: x runs to the image's right (the child's left), y down from
the lung apices. Attenuation is in units of what the central ray loses in soft tissue; like the logarithm of a
detector's reading it adds up along the ray, so every organ is one more term of a sum.
"""

from dataclasses import dataclass

import numpy as np

from pulmo.sources.phantom.drawing import Array, Dice, bone, bump, curve, dome, ramp, segment

SCALE = 128  # pixels per unit of the drawn canvas


@dataclass(frozen=True)
class Chest:
    """One child's build, the same on all of its films."""

    height: float  # from the apices to the right dome of the diaphragm after a full breath
    shoulder: float  # inner width of the thorax near the top, as a share of that near the bottom
    slope: float  # how far a rib falls on its way from spine to flank
    pitch: float  # from one rib or vertebra to the next
    rib: float  # radius of a rib
    heart: float  # half of the heart's width
    lean: float  # how far the heart's middle lies to the child's left
    thymus: float  # how far the thymus stands out at the upper heart border; 0 in most
    vessels: float  # strength of the vessel pattern
    fat: float  # soft tissue outside the ribs
    bend: float  # curvature of the spine
    breast: float  # strength of the breast shadows; 0 in most
    seed: int  # of the vessel tree

    @classmethod
    def draw(cls, dice: Dice) -> "Chest":
        """A child drawn by lot, from an infant with a wide heart to a school child with long lungs."""
        age = dice.between(0, 1)
        return cls(
            height=dice.bell(1.18 + 0.32 * age, 0.2),
            shoulder=dice.bell(0.76 + 0.08 * age, 0.1),
            slope=dice.bell(0.20 + 0.12 * age, 0.1),
            pitch=dice.bell(0.175, 0.02),
            rib=dice.bell(0.042 - 0.006 * age, 0.006),
            heart=dice.bell(0.50 - 0.08 * age, 0.1),
            lean=dice.bell(0.14, 0.09),
            thymus=dice.between(0.04, 0.22) * dice.chance(0.35 - 0.3 * age),
            vessels=dice.between(0.5, 1.2),
            fat=dice.bell(0.16, 0.1),
            bend=dice.bell(0, 0.08),
            breast=dice.between(0.03, 0.1) * dice.chance(0.3 * age),
            seed=dice.below(2**31),
        )


@dataclass(frozen=True)
class Pose:
    """The pose of the child on one film."""

    breath: float  # height of the lungs relative to a full breath
    turn: float  # rotation about the long axis, -1 to 1; makes the sides unequal and shifts the heart
    arms: float  # 0 = along the body, 1 = raised beside the head
    chin: float  # y of the chin; it hangs into some films

    @classmethod
    def draw(cls, dice: Dice) -> "Pose":
        """A pose drawn by lot."""
        return cls(dice.bell(0.92, 0.12), dice.bell(0, 1), dice.between(0, 1), dice.bell(-0.45, 0.3))


class Frame:
    """The canvas of one film and the outlines on it that organs and illness share.

    The canvas covers `columns` x `rows` pixels from (`left`, `top`), counted in pixels from the origin.
    """

    def __init__(self, chest: Chest, pose: Pose, left: int, top: int, columns: int, rows: int) -> None:
        self.left, self.top, self.shape = left, top, (rows, columns)
        straight: Array = (np.arange(left, left + columns).astype(np.float32)[None, :] + 0.5) / SCALE
        self.x: Array = straight + 0.08 * pose.turn * straight * straight
        self.y: Array = (np.arange(top, top + rows).astype(np.float32)[:, None] + 0.5) / SCALE
        self.far: Array = np.abs(self.x)  # distance from the midline
        self.height = chest.height * pose.breath
        self.v: Array = self.y / self.height  # 0 at the apices, 1 at the right dome of the diaphragm
        narrow, sail = chest.shoulder, chest.thymus
        self.wall_knots = (
            (-0.08, 0.25 * narrow), (0.02, 0.55 * narrow), (0.12, 0.78 * narrow), (0.3, 0.34 + 0.68 * narrow),
            (0.6, 0.63 + 0.38 * narrow), (0.95, 1.0), (1.3, 1.02), (1.8, 0.98), (2.4, 0.95),
        )  # fmt: skip
        self.wall = curve(self.v, *self.wall_knots)  # half the inner width of the thorax, row by row
        right, left_side = chest.heart - chest.lean + 0.06 * pose.turn, chest.heart + chest.lean + 0.06 * pose.turn
        self.right_border = -curve(
            self.v, (-0.2, 0.17), (0.05, 0.16), (0.2, 0.18 + sail), (0.38, 0.2 + 0.8 * sail),
            (0.5, 0.5 * right + 0.09), (0.75, right), (0.95, 0.95 * right), (1.15, 0.6 * right),
        )  # fmt: skip
        self.left_border = curve(
            self.v, (-0.2, 0.17), (0.08, 0.17), (0.2, 0.25 + 0.4 * sail), (0.32, 0.23 + 0.4 * sail),
            (0.45, 0.3), (0.65, 0.78 * left_side), (0.9, left_side), (1.05, 0.93 * left_side), (1.2, 0.6 * left_side),
        )  # fmt: skip
        # 1 inside heart and great vessels, 0 outside
        self.heart = ramp((self.x - self.right_border) / 0.03 + 0.5) * ramp((self.left_border - self.x) / 0.03 + 0.5)
        lateral, medial = np.maximum(self.far - 0.45, 0), np.minimum(self.far - 0.45, 0)
        lift = 0.07 * (self.x > 0).astype(np.float32) + 1.25 * lateral * lateral + 0.3 * medial * medial
        self.floor = self.height + lift  # y of the diaphragm, column by column
        self.above = ramp((self.floor - self.y) / 0.025 + 0.5)  # 1 above the diaphragm, 0 below

    def rows(self, first: float, last: float) -> slice:
        """The rows of the canvas from y = `first` to y = `last`, as far as it covers them."""
        start = max(int(first * SCALE) - self.top, 0)
        return slice(start, max(int(last * SCALE) - self.top, start))

    def air(self) -> Array:
        """Depth of lung that each ray crosses, before illness."""
        depth = dome(self.x / self.wall) * curve(self.v, (0, 0.55), (0.2, 0.72), (0.6, 0.86), (1, 0.9), (1.4, 0.75))
        recess = 0.25 * bump((self.y - self.floor) / 0.2) * (1 - self.above)
        core = ramp((0.24 - self.far) / 0.08)
        roof = self.y - 2.2 * (self.far - 0.36) * (self.far - 0.36)
        air: Array = depth * ramp(roof / 0.05) * (self.above + recess) * (1 - self.heart * (0.7 + 0.22 * core))
        return air


def attenuation(chest: Chest, pose: Pose, frame: Frame, filled: Array, streaks: Array, dice: Dice) -> Array:
    """Attenuation of every ray of the canvas, float32, 0 in free air and about 1 through the heart.

    `filled` is the share of the lung's air that illness has replaced, `streaks` the attenuation along the airways.
    """
    trunk = curve(
        frame.y, (-0.9, 0.5), (-0.5, 0.42), (-0.3, 0.48), (-0.18, 0.75), (-0.06, 0.98), (0.1, 1.02), (0.3, 0.97),
        (0.7, 1.0), (1.3, 1.05), (2.2, 1.02),
    ) + chest.fat * ramp((frame.y + 0.3) / 0.5)  # fmt: skip
    across = frame.x / trunk
    depth = curve(frame.y, (-0.5, 0.6), (-0.2, 0.62), (0.1, 0.8), (0.6, 0.97), (1.2, 1.0), (2, 1.05))
    body = dome(across * across) * depth
    elbow = (1.45 + 0.9 * min(pose.arms, 0.5) - 0.7 * max(pose.arms - 0.5, 0), 1.5 - 2.4 * pose.arms)
    arm, along = segment(frame.far, frame.y, (0.98, 0.05), elbow)
    body = np.maximum(body, 0.5 * dome(arm / (0.24 + 0.3 * chest.fat - 0.05 * along)))
    air = np.minimum(frame.air(), 0.9 * body) * (1 - filled)
    total: Array = body - 0.86 * air + streaks * air
    total *= 0.94 + 0.12 * dice.cloud(frame.shape, 36)
    total += 0.26 * bone(segment(frame.far, frame.y, (1.03, 0.02), elbow)[0], 0.062 - 0.015 * ramp(along / 0.3))
    total += _breast(chest, frame)
    _add_gas(total, frame, dice)
    _add_ribs(total, chest, frame)
    _add_spine(total, chest, frame)
    _add_shoulders(total, pose, frame)
    _add_airways(total, frame)
    _add_head(total, pose, frame)
    _add_wires(total, frame, dice)
    return total


def _breast(chest: Chest, frame: Frame) -> Array:
    across, down = (frame.far - 0.6) / 0.42, (frame.v - 0.75) / 0.35
    edge = across * across + down * down
    return chest.breast * dome(np.minimum(edge, 1))


def _add_gas(total: Array, frame: Frame, dice: Dice) -> None:
    bubbles = [(dice.bell(0.45, 0.15), 0.25, dice.between(0.1, 0.24), dice.between(0, 0.4))]
    for _ in range(dice.below(9)):
        x, below = dice.between(-0.8, 0.8), dice.between(0.3, 0.9)
        bubbles.append((x, below, dice.between(0.05, 0.15), dice.between(0, 0.2)))
    uneven = 1.2 * dice.cloud(frame.shape, 16) - 0.6
    for x, below, size, depth in bubbles:
        y = frame.height + below
        rows = frame.rows(y - 1.3 * size, y + 1.3 * size)
        across, down = (frame.x - x) / (1.4 * size), (frame.y[rows] - y) / size
        edge = across * across + down * down + uneven[rows]
        total[rows] -= depth * ramp((1 - edge) / 0.6) * (1 - frame.above[rows])


def _add_wires(total: Array, frame: Frame, dice: Dice) -> None:
    """Leads and tubes that lie on the child, on one film in four."""
    for _ in range(dice.below(3) if dice.chance(0.25) else 0):
        left, right = sorted((dice.between(-1.5, 1.5), dice.between(-1.5, 1.5)))
        knots = [(x, dice.between(-0.4, 1.6)) for x in (left, (left + right) / 2 + 0.15, right + 0.3)]
        line = curve(frame.x, *knots)
        steep = np.zeros_like(line)
        steep[:, 1:-1] = (line[:, 2:] - line[:, :-2]) * (SCALE / 2)
        inside = (frame.x > knots[0][0]) & (frame.x < knots[2][0])
        width = dice.between(0.008, 0.02)
        total += 0.35 * inside * dome((frame.y - line) / (width * np.sqrt(1 + steep * steep)))
        across, down = frame.x - knots[0][0], frame.y - knots[0][1]
        total += 0.5 * bone(np.sqrt(across * across + down * down), 0.045, 0.5)


def _add_ribs(total: Array, chest: Chest, frame: Frame) -> None:
    """Each pair is a tilted ring: its back half falls gently from spine to flank, its front half steeply inwards."""
    for number in range(11):
        behind = chest.slope * (0.75 + 0.06 * number)
        front = 1.2 * behind + 0.12
        middle = -0.08 + number * chest.pitch + behind
        rows = frame.rows(middle - behind - 0.1, middle + front + 0.1)
        if rows.stop <= rows.start:
            continue
        reach = float(curve(np.array([middle / frame.height], np.float32), *frame.wall_knots)[0]) + 0.01
        y = frame.y[rows] - middle
        high = np.where(y < 0, np.float32(behind), np.float32(front))
        x, y = frame.x / reach, y / high
        level = np.sqrt(x * x + y * y) + np.float32(1e-6)
        x_slope, y_slope = x / reach, y / high
        distance = np.abs(level - 1) * level / np.sqrt(x_slope * x_slope + y_slope * y_slope)
        run, fall, deep = y * reach, x * high, 0.6 * x
        along = run * run + fall * fall + np.float32(1e-4)
        path = np.minimum(np.sqrt(1 + deep * deep / along), 2)  # a ray along the rib crosses more of it
        faint = 0.6 if number < 8 else 0.15
        shown = np.where(y < 0, ramp((frame.far - 0.05) / 0.06), faint * ramp((frame.far / reach - 0.35) / 0.3))
        total[rows] += 0.17 * bone(distance, chest.rib) * path * shown


def _add_spine(total: Array, chest: Chest, frame: Frame) -> None:
    near = slice(max(int(-0.35 * SCALE) - frame.left, 0), max(int(0.35 * SCALE) - frame.left, 0))
    x = frame.x[:, near] - chest.bend * curve(frame.y, (-0.6, 0), (0.4, 1), (1.4, 0), (2.4, -0.6))
    turns = frame.y / chest.pitch
    phase = turns - np.floor(turns) - 0.5
    y = phase * chest.pitch
    waist = x / (0.105 - 0.012 * (1 - 4 * phase * phase))
    column = dome(waist * waist)
    body = ramp((0.40 - np.abs(phase)) / 0.08)
    plate = bump((np.abs(phase) - 0.36) / 0.05)
    picture = column * (0.09 + 0.09 * body + 0.05 * plate)
    across, down = np.abs(x) - 0.062, y + 0.1 * chest.pitch
    picture = picture + 0.07 * bone(np.sqrt(across * across + 0.6 * down * down), 0.030, 0.6)
    wing, along = segment(np.abs(x), y, (0.07, -0.02), (0.17, -0.03))
    picture = picture + 0.05 * dome(wing / (0.022 - 0.004 * along))
    down = y - 0.3 * chest.pitch
    total[:, near] += picture + 0.06 * bump(np.sqrt(x * x * 3 + down * down) / 0.035)


def _add_shoulders(total: Array, pose: Pose, frame: Frame) -> None:
    lift = 0.12 * pose.arms
    line = curve(frame.far, (0.05, 0.13), (0.3, 0.05), (0.6, -0.07 - 0.5 * lift), (0.98, -0.06 - lift))
    steep = np.zeros_like(line)
    steep[:, 1:-1] = (line[:, 2:] - line[:, :-2]) * (SCALE / 2)
    thick = curve(frame.far, (0.06, 0.058), (0.25, 0.036), (0.7, 0.036), (0.95, 0.05))
    ends = ramp((frame.far - 0.05) / 0.04) * ramp((0.98 - frame.far) / 0.05)
    rows = frame.rows(-0.4, 0.3)
    total[rows] += 0.2 * ends * bone((frame.y[rows] - line) / np.sqrt(1 + steep * steep), thick)
    rows = frame.rows(-0.2, 0.75)
    x, y = frame.far, frame.y[rows]
    plate = ramp((x - 0.72 - 0.25 * (y + 0.05)) / 0.03) * ramp((1.06 - x - 0.28 * y) / 0.03) * ramp((y + 0.02) / 0.04)
    total[rows] += 0.05 * plate
    for start, end in (((0.72, 0.0), (0.90, 0.62)), ((1.03, 0.08), (0.90, 0.62)), ((0.72, 0.0), (1.05, -0.06))):
        total[rows] += 0.08 * dome(segment(x, y, start, end)[0] / 0.03)


def _add_airways(total: Array, frame: Frame) -> None:
    rows = frame.rows(-0.9, 0.7 * frame.height)
    fork = (-0.02, 0.40 * frame.height)
    distance, along = segment(frame.x, frame.y[rows], (0.0, -0.9), fork)
    picture = (0.15 - 0.06 * ramp((along - 0.7) / 0.3)) * dome(distance / 0.065)
    for end in ((-0.26, 0.6 * frame.height), (0.28, 0.62 * frame.height)):
        distance, along = segment(frame.x, frame.y[rows], fork, end)
        picture = np.maximum(picture, (0.10 - 0.07 * along) * dome(distance / (0.055 - 0.015 * along)))
    total[rows] -= picture


def _add_head(total: Array, pose: Pose, frame: Frame) -> None:
    rows = frame.rows(-2, pose.chin)
    across, down = frame.x / 0.6, (frame.y[rows] - pose.chin) / 0.7 + 1
    radius = np.sqrt(across * across + down * down)
    total[rows] += 0.6 * dome(radius) + 0.2 * bone(radius - 0.92, 0.09)
