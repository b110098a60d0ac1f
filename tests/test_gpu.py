"""What can only be checked on a GPU: `pytest -m gpu tests/test_gpu.py`, less than five minutes."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small_models
from pellucid.backends.backend import list_devices
from pellucid.backends.eager import TorchBackend
from pellucid.data.store import Store
from pellucid.data.store_writer import Planned, Stamp, StoreWriter
from pellucid.degradations.degradation import Degradation
from pellucid.degradations.rng import build_generator
from pellucid.degradations.standard import Jpeg, ShiftedJpeg
from pellucid.domains import Degraded
from pellucid.pictures import images
from pellucid.pictures.camera.packing import BAYER
from pellucid.pictures.picture import Mosaic, NoiseLevel, Picture
from pellucid.recipes import registry
from pellucid.recipes.recipe import Recipe
from pellucid.restoration import planning
from pellucid.restoration.loading import Loading
from pellucid.restoration.on_cluster import iter_restore_on_devices
from pellucid.restoration.restore import restore
from pellucid.restoration.restorer import Restorer, load
from pellucid.restoration.settings import Settings
from pellucid.system import devices
from pellucid.system.devices import Download
from pellucid.training.batches import Batches
from pellucid.training.distributed import Group
from pellucid.training.learner import ExecutionMode, Learner, StepResult
from pellucid.training.mixing import MixedStore
from pellucid.training.train import Status, train
from pellucid.weights import checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"),
]

GPU = torch.device("cuda")
TOLERANCE = 1e-5
"""Of white. Measured on an H100 for all weights that ship: at most 1.7e-6."""

TASKS: dict[str, dict[str, Any]] = {
    **small_models.RECIPES,
    "srcnn.tuned": {"scale": 2},
    "dncnn.raw": {"depth": 4, "width": 8},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-4, "clip_norm": 1.0},
    "soap": {"optimizer": "soap", "precondition_frequency": 3, "weight_decay": 0.1},
}


def build(name: str, device: torch.device) -> Restorer:
    recipe, network = small_models.build(name, **TASKS[name])
    return Restorer(name, recipe, TorchBackend(network, str(device)))


def degraded_for(restorer: Restorer, dtype: str = "float32", side_px: int = 150) -> Degraded:
    rng = np.random.default_rng(0)
    if restorer.recipe.domain.takes_mosaic:
        samples = rng.integers(400, 16000, (side_px, side_px), np.uint16).astype(
            "uint16" if dtype == "uint8" else dtype
        )
        return Mosaic(samples, BAYER, 512, 16383, noise=NoiseLevel(1e-3, 1e-5))
    return Picture(rng.random((side_px, side_px + 7, 3), np.float32)).as_depth(dtype)


def white_of(restored: Degraded) -> float:
    if isinstance(restored, Mosaic):
        return restored.white_level
    return {"uint8": 255.0, "uint16": 65535.0}.get(restored.dtype, 1.0)


def assert_close(found: Degraded, expected: Degraded) -> None:
    """Floating-point samples to TOLERANCE; integers to the level that rounding may add."""
    difference = abs(found.samples.astype(np.float64) - expected.samples.astype(np.float64)).max()
    levels = 0 if found.samples.dtype.kind == "f" else 1
    assert difference <= max(TOLERANCE * white_of(expected), levels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", TASKS)
def test_results_agree_with_those_of_the_cpu(name: str, dtype: str) -> None:
    on_cpu, on_gpu = build(name, torch.device("cpu")), build(name, GPU)
    degraded = degraded_for(on_cpu, dtype)
    assert_close(on_gpu.restore(degraded), on_cpu.restore(degraded))
    if not on_cpu.recipe.domain.takes_mosaic:
        given: dict[str, Any] = {"ensemble": True, "strength": 0.6, "tile_px": 64}
        assert_close(on_gpu.restore(degraded, **given), on_cpu.restore(degraded, **given))


@pytest.mark.parametrize("name", TASKS)
def test_tiles_equal_the_whole(name: str) -> None:
    restorer = build(name, GPU)
    degraded = degraded_for(restorer, side_px=300)
    assert_close(restorer.restore(degraded, tile_px=64), restorer.restore(degraded, tile_px=10_000))


def test_tiles_get_smaller_when_the_memory_of_the_gpu_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = build("dncnn.gaussian", GPU)
    picture = Picture(np.random.default_rng(0).random((3000, 3000, 1), np.float32))
    expected = restorer.restore(picture, tile_px=256)
    monkeypatch.setattr(
        devices, "free_device_bytes", lambda device: None
    )  # as if it was free when tiles were chosen
    torch.cuda.empty_cache()
    # The eight features of a layer take 288 MB, for the whole picture.
    torch.cuda.set_per_process_memory_fraction(4e8 / torch.cuda.get_device_properties(GPU).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(10**9, dtype=torch.uint8, device=GPU)
        assert_close(restorer.restore(picture, tile_px=10_000), expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_tiles_are_chosen_by_the_free_memory_of_the_gpu() -> None:
    free_bytes = devices.free_device_bytes(GPU)
    assert free_bytes is not None and 0 < free_bytes <= torch.cuda.get_device_properties(GPU).total_memory
    block = torch.empty(10**8, dtype=torch.uint8, device=GPU)
    assert devices.free_device_bytes(GPU) == pytest.approx(free_bytes - 10**8, abs=5e7)
    del block  # cached by PyTorch
    assert devices.free_device_bytes(GPU) == pytest.approx(free_bytes, abs=5e7)


def test_a_download_waits_for_its_values_only() -> None:
    values = torch.arange(10**6, device=GPU)
    torch.cuda._sleep(10**8)  # clock cycles, before the values are computed
    download = Download(values * 2)
    del values  # its memory must not be reused before it is copied
    overwritten = [torch.zeros(10**6, dtype=torch.int64, device=GPU) for _ in range(20)]
    torch.cuda._sleep(10**10)  # seconds
    assert torch.equal(download.wait(), torch.arange(10**6) * 2)
    assert not torch.cuda.current_stream().query(), "it has waited for everything"
    del overwritten


# ---- training ------------------------------------------------------------------------------------


def tiny(optimizer: str = "adam", **keywords: Any) -> Recipe:
    small = {"depth": 4, "width": 8, "batch_size": 8, "patch_px": 32, "num_steps": 40, "ema_decay": 0.9}
    return registry.find("dncnn.gaussian", **{**small, "lr": 1e-3, **OPTIMIZERS[optimizer], **keywords})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store", {}) as writer:
        for i in range(4):
            smooth = np.cumsum(rng.normal(0, 3, (80, 90, 3)), axis=1) + 128
            writer.put(f"{i}.png", Stamp(1, 2, "3"), smooth.clip(0, 255).astype("uint8"))
        return writer.finish("clean", [Planned(key, key) for key in writer.records], [])


def build_learner(recipe: Recipe, mode: ExecutionMode, device: torch.device = GPU) -> Learner:
    torch.manual_seed(0)
    return Learner(recipe, recipe.network(), mode, seed=0, group=Group(device))


def learn(learner: Learner, num_steps: int, nan_at: tuple[int, ...] = ()) -> list[StepResult]:
    """Steps on the same batches on every device."""
    generator, results = torch.Generator().manual_seed(1), []
    for step in range(num_steps):
        target = torch.rand(8, 1, 32, 32, generator=generator)
        degraded = target + 0.1 * torch.randn(target.shape, generator=generator)
        degraded *= float("nan") if step in nan_at else 1.0
        results += learner.learn(degraded.to(learner.device), target.to(learner.device))
    return results + learner.settle()


@contextmanager
def forbid_waits() -> Iterator[None]:
    """Operations that wait for the GPU raise an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_and_batches_do_not_wait(optimizer: str, precision: str, store: Store) -> None:
    recipe = tiny(optimizer)
    learner = build_learner(recipe, ExecutionMode(precision, channels_last=True))
    with closing(Batches(recipe, store, seed=0, device=GPU)) as batches:
        for _ in range(4):
            learner.learn(*batches.batch(learner.step))
        with forbid_waits():
            for _ in range(6):
                learner.learn(*batches.batch(learner.step))
    assert len(learner.settle()) == 1


@pytest.mark.parametrize("name", ["dncnn.photo", "dncnn.jpeg", "dncnn.three_tasks"])
def test_degrading_does_not_wait(name: str, store: Store) -> None:
    recipe = registry.find(name, depth=3, width=4, batch_size=64, patch_px=32)
    with closing(Batches(recipe, store, seed=0, device=GPU)) as batches:
        for step in range(4):
            batches.batch(step)
        with forbid_waits():
            for step in range(4, 10):
                batches.batch(step)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("degradation", [Jpeg((1, 100)), ShiftedJpeg((1, 100))], ids=repr)
def test_jpeg_has_the_samples_of_libjpeg(degradation: Degradation, channels: int) -> None:
    pictures = torch.rand(100, channels, 67, 75, generator=torch.Generator().manual_seed(0))
    pictures[:50] = torch.nn.functional.avg_pool2d(pictures[:50], 9, 1, 4)
    on_gpu = pictures.to(GPU)
    generator = build_generator(GPU, 0)  # the numbers that it draws are those of a CPU
    with forbid_waits():
        compressed = degradation(on_gpu, generator)
    expected = degradation(pictures, build_generator(torch.device("cpu"), 0))
    assert torch.equal(compressed.cpu(), expected)


@pytest.mark.parametrize("resident", [False, True])
def test_mixed_batches_do_not_wait(resident: bool, store: Store, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "pairs", {}) as writer:
        writer.put("sharp", Stamp(1, 2, "3"), np.array(store.target(0)))
        writer.put("blur", Stamp(1, 2, "3"), np.array(store.target(0)) // 2)
        mixed = [MixedStore(writer.finish("pairs", [Planned("blur", "sharp", "blur")], []), 0.4, "pairs")]
    recipe = tiny()
    with closing(
        Batches(recipe, store, mixed=mixed, seed=0, device=GPU, prefetch=0, resident=resident)
    ) as batches:
        shards = [[batches._draw(step, shard) for shard in range(8)] for step in range(8)]
        for some in shards[:4]:
            batches._make_shards(some)
        with forbid_waits():  # which is about this thread only
            for some in shards[4:]:
                degraded, target = batches._make_shards(some)
        assert {shard.source for some in shards for shard in some} == {0, 1}
    assert degraded.shape == target.shape == (8, 1, 32, 32)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_batches_that_are_not_finite_change_nothing(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nan_at = (0, 7, 8, 20)
    late = build_learner(tiny(optimizer), ExecutionMode())
    results = learn(late, 30, nan_at)
    assert [result.step - 1 for result in results if result.is_skipped] == list(nan_at)
    monkeypatch.setattr(devices, "is_asynchronous", lambda device: False)
    at_once = build_learner(tiny(optimizer), ExecutionMode())
    expected = learn(at_once, 30, nan_at)
    losses = [[result.loss for result in one] for one in (results, expected)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    for name, tensor in late.weights().items():
        torch.testing.assert_close(tensor, at_once.weights()[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_agree_with_those_of_the_cpu(optimizer: str) -> None:
    """SOAP's bases are computed in another way than on the CPU."""
    recipe = tiny(optimizer)
    losses = [
        [result.loss for result in learn(build_learner(recipe, ExecutionMode(), device), 20)]
        for device in (torch.device("cpu"), GPU)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


@pytest.mark.filterwarnings("ignore")  # of the compiler
def test_graphs_agree_with_eager_mode() -> None:
    modes = ExecutionMode(channels_last=True), ExecutionMode(channels_last=True, compiled=True, graphs=True)
    eager, graphs = ([result.loss for result in learn(build_learner(tiny(), mode), 15, (5,))] for mode in modes)
    np.testing.assert_allclose(graphs, eager, rtol=1e-2)


class Crash(Exception):  # noqa: N818  # not an error of the package
    pass


def test_an_interrupted_training_ends_with_the_same_weights(store: Store, tmp_path: Path) -> None:
    def crash(status: Status) -> None:
        if status.step == 17:
            raise Crash

    given: dict[str, Any] = {"data": tmp_path / "store", "device": "cuda", "tune": False}
    whole = train(tiny(), out=tmp_path / "whole", **given)
    with pytest.raises(Crash):
        train(tiny(), out=tmp_path / "crashed", save_every_s=0.0, progress=crash, **given)
    resumed = train(tiny(), out=tmp_path / "crashed", **given)
    expected, found = (checkpoint.load(path).network.state_dict() for path in (whole, resumed))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=TOLERANCE)


def test_all_gpus_restore_the_pictures_of_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        images.write(Picture(rng.integers(0, 256, (60, 70, 3), np.uint8)), tmp_path / "in" / f"{number}.png")
    devices = list_devices("all")
    assert len(devices) == torch.cuda.device_count()
    devices = devices if len(devices) > 1 else devices * 2  # two processes on one GPU
    restorer = load("srcnn-x2", device=devices[0])
    restore(tmp_path / "in", restorer, tmp_path / "one")
    jobs = planning.plan(tmp_path / "in", tmp_path / "several", model=restorer.name)
    loading = Loading("srcnn-x2", devices[0])
    outcomes = list(iter_restore_on_devices(devices, jobs, restorer, loading, Settings()))
    assert [outcome.error for outcome in outcomes] == [None] * 8
    for path in (tmp_path / "one").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "several" / path.name).read_bytes()
