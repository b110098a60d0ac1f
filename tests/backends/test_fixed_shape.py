"""Windows of one shape give the result of the whole input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.backends.fixed_shape import FixedShape, Planes
from pellucid.errors import PictureError
from pellucid.networks.dncnn import DnCNN
from pellucid.networks.mimo_unet import MIMOUNet
from pellucid.recipes.network import Network


def network(make: Callable[[], Network]) -> Network:
    torch.manual_seed(0)
    return make().eval()


NETWORKS = {
    "dncnn": network(lambda: DnCNN(depth=4, channels=3)),
    "mimo": network(lambda: MIMOUNet(num_blocks=1, width=4)),
}


def run(found: Network, planes: Planes) -> Planes:
    with torch.inference_mode():
        restored: Planes = found(torch.from_numpy(planes)).numpy()
    return restored


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(NETWORKS)),
    st.integers(1, 3),
    st.integers(1, 5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(0, 25), st.integers(0, 25)),
)
def test_windows_equal_the_whole(
    name: str, count: int, batch: int, larger: tuple[int, int], more: tuple[int, int]
) -> None:
    found = NETWORKS[name]
    grid = found.multiple
    least = -(-found.halo // grid) * grid * 2
    fixed_height, fixed_width = (least + grid * steps for steps in larger)
    height, width = fixed_height + grid * more[0], fixed_width + grid * more[1]
    fixed = FixedShape((batch, 3, fixed_height, fixed_width), 1, grid, found.halo)
    shapes = []

    def graph(planes: Planes) -> Planes:
        shapes.append(planes.shape)
        return run(found, planes)

    degraded = np.random.default_rng(0).random((count, 3, height, width), np.float32)
    np.testing.assert_allclose(fixed.run(graph, degraded), run(found, degraded), atol=1e-5)
    assert set(shapes) == {fixed.shape}


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((1, 3, 32, 32), (32, 31), "width of the network's input is 31 px.* for 32, which is more"),
        ((1, 3, 32, 32), (35, 32), "height .* 35 px.*; other inputs must be multiples of 2"),
        ((1, 3, 32, 32), (32, 33), "width .* 33 px.*; other inputs must be multiples of 2"),
        ((1, 3, 12, 32), (14, 32), "more than 12 px, in multiples of 2"),
        ((1, 3, 33, 32), (36, 32), "more than 12 px, in multiples of 2"),
    ],
)
def test_inputs_that_windows_do_not_cover_exactly_are_refused(
    shape: tuple[int, int, int, int], size: tuple[int, int], message: str
) -> None:
    fixed = FixedShape(shape, 1, multiple=2, halo=5)
    with pytest.raises(PictureError, match=message):
        fixed.check(*size)
    with pytest.raises(PictureError, match=message):
        fixed.run(lambda planes: planes, np.zeros((1, 3, *size), np.float32))


@pytest.mark.parametrize(("side_px", "is_costly"), [(10, False), (12, True), (19, True), (21, False)])
def test_small_windows_get_a_note(side_px: int, is_costly: bool) -> None:
    note = FixedShape((1, 1, side_px, side_px), 1, multiple=1, halo=5).describe_cost()
    assert (note is not None) is is_costly
    assert note is None or f"{side_px - 10} x {side_px - 10} are kept" in note


def test_an_input_of_just_this_size_needs_no_halo() -> None:
    fixed = FixedShape((2, 1, 5, 7), 1, multiple=4, halo=99)
    degraded = np.arange(3 * 5 * 7, dtype=np.float32).reshape(3, 1, 5, 7)
    assert (fixed.run(lambda planes: planes, degraded) == degraded).all()
