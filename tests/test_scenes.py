"""Composed scenes: what covers what, and that masks and boxes say it."""

from pathlib import Path

import numpy as np
import pytest

from hand_made import TONED, built_from, iconify_files, no_value_twice, noise, png
from msvae.data.sets.scenes import boxes, compose, edges

GROUND = np.full((64, 64, 3), 100, dtype=np.uint8)


def _square(side: int, colour: int, opacity: int = 255) -> np.ndarray:
    return np.dstack([np.full((side, side, 3), colour, np.uint8), np.full((side, side), opacity, np.uint8)])


def test_a_nearer_object_covers_a_farther_one() -> None:
    scene = compose(GROUND, [_square(20, 0), _square(20, 250)], [(10, 10), (20, 20)])
    assert scene.kept == (0, 1)
    assert scene.picture[12, 12].tolist() == [0, 0, 0]
    assert scene.picture[25, 25].tolist() == [250, 250, 250]
    assert scene.picture[60, 60].tolist() == [100, 100, 100]
    assert int((scene.order == 1).sum()) == 400 - 100
    assert int((scene.order == 2).sum()) == 400
    assert boxes(scene.order).tolist() == [[10, 10, 30, 30], [20, 20, 40, 40], [-1, -1, -1, -1]]


def test_opacity_blends_and_only_the_opaque_part_is_mask() -> None:
    thing = _square(10, 200)
    thing[:5, :, 3] = 100
    scene = compose(GROUND, [thing], [(0, 0)])
    assert scene.picture[0, 0].tolist() == [round(100 + 100 * 100 / 255)] * 3
    assert int((scene.order == 1).sum()) == 50
    assert boxes(scene.order)[0].tolist() == [0, 5, 10, 10]


def test_a_hidden_object_is_left_out_and_the_others_are_looked_at_again() -> None:
    hidden = compose(GROUND, [_square(20, 0), _square(20, 250)], [(10, 10), (12, 12)])
    assert hidden.kept == (1,)  # 76 of 400 pixels are seen: 19 %
    assert set(np.unique(hidden.order)) == {0, 1}
    assert not (hidden.picture == 0).any()
    # the second hides the first, but is itself most hidden by the third: once it is gone, half of the first is seen
    first, second, third = _square(20, 0), _square(40, 50)[:20], _square(34, 250)
    assert compose(GROUND, [first, second], [(0, 0), (0, 4)]).kept == (1,)
    assert compose(GROUND, [first, second, third], [(0, 0), (0, 4), (0, 10)]).kept == (0, 2)


def test_edges_are_where_brightness_changes() -> None:
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[:, 4:] = 51
    found = edges(picture)
    expected = round(255 * 2.5 * (51 / 255) / 2)
    assert found[3].tolist() == [0, 0, 0, expected, expected, 0, 0, 0]


def test_scenes_share_no_object_and_no_photo(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    codes = [f"1f4{number:02x}" for number in range(96)] + TONED[:8]
    photos = {f"usr/share/backgrounds/photo{number}.jpg": png(noise(80, 90, 3, seed=number)) for number in range(10)}
    files = {"@iconify-json/noto": iconify_files(codes, "red"), "lomiri-wallpapers-16.04": photos}
    data = built_from("scenes", files, tmp_path, train=60, validation=20, test=30)
    no_value_twice(data, "object")
    no_value_twice(data, "ground")
    for rows in data.splits.values():
        for row in range(len(rows)):
            order = rows.values["order"][row, 0].numpy()
            classes, found = rows.columns["classes"][row], rows.columns["boxes"][row]
            count = int((classes >= 0).sum())
            assert set(np.unique(order)) == set(range(count + 1))
            assert (found[count:] == -1).all()
            for number in range(count):
                left, top, right, bottom = found[number]
                mask = order == number + 1
                assert mask[top:bottom, left:right].sum() == mask.sum() > 0
                assert mask[top, left:right].any()
                assert mask[top:bottom, right - 1].any()
                assert (rows.columns["classes_map"][row][mask] == classes[number] + 1).all()
            assert (rows.columns["classes_map"][row][order == 0] == 0).all()
