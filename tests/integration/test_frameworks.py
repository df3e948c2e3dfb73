"""Training frameworks: the examples as a user runs them, and every batch counted."""

import itertools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from devices import SlowStream
from helpers import Script, assert_once, numbered, samples_of

import xtorch_data as xtd
from xtorch_data.loading import transfer

EXAMPLES = Path(__file__).parents[2] / "examples"
# Years of the file, of which nine in a row make a sample.
SAMPLES = 240 - 8
TRAINING_SAMPLES = 2029 - 1860 + 1 - 8


def flat(batches):
    return [number for batch in batches for number in batch]


# Runs an example as it stands and writes what its variable `seen` holds in the end.
WRAPPER = """
    import json, os, runpy, sys
    folder, *sys.argv = sys.argv[1:]
    seen = runpy.run_path(sys.argv[0], run_name="__main__")["seen"]
    with open(os.path.join(folder, os.environ["RANK"] + ".json"), "w") as file:
        json.dump(seen, file)
"""


def with_torchrun(folder, example, *arguments, ranks=2):
    """What each rank of an example trained on: sample numbers, batch after batch."""
    wrapper = folder / "wrapper.py"
    wrapper.write_text(textwrap.dedent(WRAPPER))
    run = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        + [str(ranks), str(wrapper), str(folder), str(EXAMPLES / example), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        output, _ = run.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        raise AssertionError(f"hung; it said\n{run.communicate()[0]}") from None
    assert run.returncode == 0, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)], output


def with_ranks(folder, example, *arguments, ranks=2):
    """The same in the environment that torchrun makes, but without its launcher.

    Ranks begin in the fork server, where torch is imported already.
    """
    wrapper = folder / "wrapper.py"
    wrapper.write_text(textwrap.dedent(WRAPPER))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "OMP_NUM_THREADS": "1",
    }
    started = []
    for rank in range(ranks):
        (folder / f"rank {rank}").mkdir()
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        script = Script(
            wrapper, folder, EXAMPLES / example, *arguments, folder=folder / f"rank {rank}",
            environment=environment | own, warnings_as_errors=False,
        )  # fmt: skip
        started.append(script)
    done = [script.wait(120) for script in started]
    output = "".join(each.stdout + each.stderr for each in done)
    assert all(each.returncode == 0 for each in done), output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)], output


def load(example):
    """The functions of an example, without running it."""
    return runpy.run_path(str(EXAMPLES / example))


# ---------------------------------------------------------------------------------------------
# Plain DistributedDataParallel


@pytest.mark.slow
def test_ddp_with_torchrun_trains_on_each_sample_once_and_goes_on_with_fewer_ranks(tmp_path):
    checkpoint = tmp_path / "ddp.pt"
    options = ["--checkpoint", checkpoint, "--epochs", 1, "--steps", 5]
    ranks, output = with_torchrun(tmp_path, "train_ddp.py", *options)
    assert "0 repeated, 0 missing; 15 batches on each of 2 ranks" in output
    assert [len(batches) for batches in ranks] == [5, 5]
    before = flat(itertools.chain(*ranks))
    assert len(set(before)) == len(before) == 2 * 5 * 8

    dataset = load("train_ddp.py")["forecasts"](shuffle=True, seed=1)
    loader = xtd.DataLoader(dataset)
    loader.load_state_dict(torch.load(checkpoint)["loader"])
    assert_once(before + samples_of(loader), SAMPLES)


# ---------------------------------------------------------------------------------------------
# Lightning

# It warns about much that is as meant here: no logger, no workers, a loader that has a length.
IN_LIGHTNING = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.mark.slow
@IN_LIGHTNING
def test_lightning_with_two_ranks_and_its_checkpoint_on_one(tmp_path):
    """Fit and validate; stopped in the middle of an epoch; gone on with on another topology."""
    lightning = load("train_lightning.py")
    options = ["--folder", tmp_path, "--devices", 2, "--epochs", 1]
    ranks, output = with_ranks(tmp_path, "train_lightning.py", *options)
    assert [len(batches) for batches in ranks] == [11, 11]
    assert_once(flat(itertools.chain(*ranks)), TRAINING_SAMPLES)
    assert "validation" in output
    before = flat(itertools.chain(*(batches[:5] for batches in ranks)))

    seen = lightning["main"](
        tmp_path, epochs=2, resume=tmp_path / "step=5.ckpt", batch_size=6, num_workers=0
    )
    rest = -(-(TRAINING_SAMPLES - len(before)) // 6)
    assert_once(before + flat(seen[:rest]), TRAINING_SAMPLES)
    assert_once(flat(seen[rest:]), TRAINING_SAMPLES)
    assert seen[rest:] != seen[:rest]


@pytest.fixture
def fit(tmp_path):
    """Fit a small model with Lightning; the samples of its batches, in every epoch."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append((self.current_epoch, batch_idx, batch.index.tolist()))
            return self.layer(batch.x[:, None].float()).square().mean()

        def validation_step(self, batch, batch_idx):
            self.log("loss", self.layer(batch.x[:, None].float()).mean(), batch_size=len(batch))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-9)

    def loader(**options):
        dataset = xtd.IterableDataset(
            numbered(26), {"time": 1}, batch_size=4, memory="100 B", **options
        )
        return xtd.DataLoader(dataset)

    def run(validate, resume=None):
        every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = L.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[] if resume else [every],
            enable_checkpointing=not resume,
        )  # fmt: skip
        model = Model()
        validation = loader() if validate else None
        trainer.fit(model, loader(shuffle=True, seed=2), validation, ckpt_path=resume)
        return model.seen

    return run


@IN_LIGHTNING
@pytest.mark.parametrize("validate", [False, True])
def test_lightning_goes_on_from_the_checkpoint_of_every_batch(fit, validate, tmp_path):
    """No batch lost or repeated, also at the ends of epochs; later epochs in their own orders."""
    whole = fit(validate)
    assert [epoch for epoch, _, _ in whole] == [0] * 7 + [1] * 7 + [2] * 7
    for epoch in range(3):
        assert_once(flat(numbers for when, _, numbers in whole if when == epoch), 26)
    assert whole[0][2] != whole[7][2] != whole[14][2]
    for step in range(1, len(whole)):
        assert fit(validate, tmp_path / f"step={step}.ckpt") == whole[step:], step


def trained(kind, by_module, run, **options):
    """What a trainer hands out of a loader: (stage, numbers of the samples of the batch)."""
    import lightning as L

    def loader():
        samples = xtd.MapDataset(numbered(26), {"time": 1})
        if kind == "stream":
            return xtd.DataLoader(xtd.IterableDataset(samples, batch_size=4))
        if kind == "sampler":
            return xtd.DataLoader(samples, batch_size=4, sampler=torch.arange(26))
        if kind == "device":
            return xtd.DataLoader(samples, batch_size=4, device="cpu")
        return xtd.DataLoader(samples, batch_size=4)

    class Data(L.LightningDataModule):
        def made(self):
            return loader()

        train_dataloader = val_dataloader = test_dataloader = predict_dataloader = made

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(1, 1), []

        def step(self, batch, batch_idx):
            self.seen.append(batch.index.tolist())
            return self.layer(batch.x[:, None].float()).square().mean()

        training_step = test_step = predict_step = step

        def validation_step(self, batch, batch_idx):
            if run == "validate":
                self.step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-9)

    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    model = Model()
    name = "datamodule" if by_module else "train_dataloaders" if run == "fit" else "dataloaders"
    getattr(trainer, run)(model, **{name: Data() if by_module else loader()})
    return model.seen


EVERY = [list(range(start, min(start + 4, 26))) for start in range(0, 26, 4)]


@IN_LIGHTNING
@pytest.mark.parametrize(
    ("kind", "by_module"),
    [("samples", True), ("samples", False), ("sampler", True), ("stream", False), ("device", True)],
)
def test_lightning_does_all_it_can_with_every_kind_of_loader(kind, by_module):
    """It makes loaders again, with what it finds among their attributes or arguments."""

    def seen(run, **options):
        return trained(kind, by_module, run, **options)

    assert seen("predict") == EVERY
    assert seen("fit", overfit_batches=2) == 2 * EVERY[:2]
    if kind != "samples":
        return
    assert seen("validate") == seen("test") == EVERY
    assert seen("fit") == 2 * EVERY
    assert seen("fit", overfit_batches=0.5) == 2 * EVERY[:3]
    assert seen("fit", limit_train_batches=3, limit_val_batches=1) == 2 * EVERY[:3]
    assert seen("fit", use_distributed_sampler=False, fast_dev_run=True) == EVERY[:1]


@IN_LIGHTNING
def test_the_batch_size_finder_works_with_a_data_module(tmp_path):
    import lightning as L
    from lightning.pytorch.tuner import Tuner

    sizes = []

    class Data(L.LightningDataModule):
        batch_size = 2

        def train_dataloader(self):
            samples = xtd.MapDataset(numbered(26), {"time": 1})
            return xtd.DataLoader(samples, batch_size=self.batch_size, shuffle=True)

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            sizes.append(len(batch))
            return self.layer(batch.x[:, None].float()).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-9)

    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=1,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=tmp_path,
    )  # fmt: skip
    data = Data()
    found = Tuner(trainer).scale_batch_size(Model(), datamodule=data, max_trials=2, init_val=3)
    assert found == data.batch_size == 6, sizes
    assert 6 in sizes


@IN_LIGHTNING
@pytest.mark.parametrize("given", [True, False])
def test_another_batch_size_goes_on_where_the_loader_was_given_to_the_trainer(tmp_path, given):
    """Without the loader the callback cannot know how many batches there are, and says so."""
    import lightning as L
    from lightning.pytorch.callbacks import ModelCheckpoint

    from xtorch_data.lightning import AnyTopology

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(1, 1), []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch.index.tolist())
            return self.layer(batch.x[:, None].float()).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-9)

    class AtTheStart(L.Callback):
        """A checkpoint when no batch of the first epoch has come yet."""

        def on_train_epoch_start(self, trainer, module):
            trainer.save_checkpoint(tmp_path / "start.ckpt")

    def fitted(batch_size, callbacks, resume=None, **options):
        samples = xtd.MapDataset(numbered(26), {"time": 1})
        loader = xtd.DataLoader(samples, batch_size=batch_size, shuffle=True)
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=callbacks(loader), **options,
        )  # fmt: skip
        model = Model()
        trainer.fit(model, loader, ckpt_path=resume)
        return flat(model.seen)

    every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    before = fitted(4, lambda loader: [every, AtTheStart()])[:12]
    again = {"resume": tmp_path / "step=3.ckpt", "enable_checkpointing": False}
    if not given:
        with pytest.raises(TypeError, match="give it to AnyTopology, too"):
            fitted(2, lambda loader: [AnyTopology()], **again)
        return
    assert_once(before + fitted(2, lambda loader: [AnyTopology(loader)], **again), 26)
    again["resume"] = tmp_path / "start.ckpt"
    assert_once(fitted(4, lambda loader: [AnyTopology(loader)], **again), 26)


# ---------------------------------------------------------------------------------------------
# Accelerate


@pytest.mark.slow
def test_accelerate_shards_once_and_its_state_holds_where_the_loader_is(tmp_path):
    folder = tmp_path / "state"
    options = ["--folder", folder, "--epochs", 1, "--steps", 5]
    ranks, _ = with_ranks(tmp_path, "train_accelerate.py", *options)
    before = flat(itertools.chain(*ranks))
    assert len(set(before)) == len(before) == 2 * 5 * 8

    after = load("train_accelerate.py")["main"](folder, epochs=1)
    assert_once(before + flat(after), SAMPLES)


def test_prepare_leaves_the_loader_as_it_is():
    from accelerate import Accelerator

    loader = xtd.DataLoader(xtd.IterableDataset(numbered(9), {"time": 1}, batch_size=4))
    accelerator = Accelerator(cpu=True)
    assert accelerator.prepare(loader) is loader
    assert accelerator.prepare(loader) is loader
    assert [len(batch) for batch in loader] == [4, 4, 1]
    # Nobody else shares out samples by number.
    samples = xtd.MapDataset(numbered(9), {"time": 1})
    assert accelerator.prepare(stream := xtd.DataLoader(samples, batch_size=4)) is stream
    loader = xtd.DataLoader(samples, batch_size=4, sampler=torch.arange(9))
    prepared = accelerator.prepare(loader)
    assert prepared is not loader
    assert [batch.index.tolist() for batch in prepared] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


# ---------------------------------------------------------------------------------------------
# Batches that are on the device already

ON_DEVICE = [{}, {"gather": "device"}, {"prefetch": 3, "augment": lambda batch: batch}]


@pytest.fixture
def late(monkeypatch):
    """A device whose copies are late, on which nobody may look who has not waited."""
    made = []

    def of(device):
        made.append(SlowStream(len(made)))
        return made[-1]

    monkeypatch.setattr(transfer.Streams, "of", staticmethod(of))
    return made


@IN_LIGHTNING
def test_lightning_takes_batches_from_the_device_of_its_trainer(late):
    import lightning as L

    class Model(L.LightningModule):
        def __init__(self, **how):
            super().__init__()
            self.layer, self.how, self.seen = torch.nn.Linear(1, 1), how, []

        def train_dataloader(self):
            dataset = xtd.IterableDataset(
                numbered(26), {"time": 1}, batch_size=4, shuffle=True, memory="100 B"
            )
            device = self.trainer.strategy.root_device
            return xtd.DataLoader(dataset, device=device, **self.how)

        def training_step(self, batch, batch_idx):
            assert torch.equal(batch.x.flatten(), batch.index)
            assert isinstance(batch, xtd.Batch)
            self.seen += batch.index.tolist()
            return self.layer(batch.x.float()).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-9)

    for how in ON_DEVICE[::2]:  # the late device only knows copies
        model = Model(**how)
        trainer = L.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(model)
        assert_once(model.seen[:26], 26)
        assert_once(model.seen[26:], 26)
    assert sum(stream.done for stream in late) >= 2 * 2 * 7


def test_accelerate_leaves_batches_where_they_are():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    for how in ON_DEVICE:
        dataset = xtd.IterableDataset(numbered(26), {"time": 1}, batch_size=4, shuffle=True)
        loader = xtd.DataLoader(dataset, device=accelerator.device, **how)
        model, prepared = accelerator.prepare(torch.nn.Linear(1, 1), loader)
        assert prepared is loader
        seen = []
        for batch in prepared:
            assert batch.x.device == accelerator.device
            with accelerator.accumulate(model):
                accelerator.backward(model(batch.x.float()).square().mean())
            seen += batch.index.tolist()
        assert_once(seen, 26)


@pytest.mark.parametrize("how", ON_DEVICE)
def test_ranks_with_devices_of_their_own_share_an_epoch(how):
    """As with DDP: as many batches on each, every sample once, and one state for all."""

    def loaders():
        return [
            xtd.DataLoader(
                xtd.IterableDataset(
                    numbered(48), {"time": 1}, batch_size=4, shuffle=True, memory="100 B",
                    rank=rank, world_size=2,
                ),
                device="cpu",
                **how,
            )
            for rank in range(2)
        ]  # fmt: skip

    whole = [[batch.index.tolist() for batch in loader] for loader in loaders()]
    assert [len(batches) for batches in whole] == [6, 6]
    assert_once(flat(itertools.chain(*whole)), 48)
    left = loaders()
    before = [
        [batch.index.tolist() for _, batch in zip(range(2), loader, strict=False)]
        for loader in left
    ]
    state = json.loads(json.dumps(left[0].state_dict()))
    rest = loaders()
    for loader in rest:
        loader.load_state_dict(state)
    after = [[batch.index.tolist() for batch in loader] for loader in rest]
    assert [one + other for one, other in zip(before, after, strict=True)] == whole


# ---------------------------------------------------------------------------------------------
# torchdata's StatefulDataLoader

IN_TORCHDATA = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def stateful(workers, persistent=False, **options):
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = xtd.IterableDataset(
        numbered(40), {"time": 1}, batch_size=4, shuffle=True, memory="200 B", **options
    )
    return StatefulDataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        persistent_workers=persistent,
    )


@IN_TORCHDATA
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_the_stateful_loader_goes_on_from_every_batch(workers, persistent):
    first, whole, states = stateful(workers, persistent), [], []
    for _ in range(2):
        for batch in first:
            whole.append(batch.index.tolist())
            states.append(json.loads(json.dumps(first.state_dict())))
    assert_once(flat(whole[:10]), 40)
    assert_once(flat(whole[10:]), 40)
    assert whole[:10] != whole[10:]
    for taken, state in enumerate(states[:-1], start=1):
        if persistent and taken % 3 != 1:  # as the others
            continue
        again = stateful(workers, persistent)
        again.load_state_dict(state)
        found = [samples_of([batch]) for batch in again]
        assert found == whole[taken : taken // 10 * 10 + 10] or taken % 10 == 0
        if taken < 10 and taken % 3 == persistent:  # and the epoch after it is a whole one
            assert [samples_of([batch]) for batch in again] == whole[10:]


def test_the_state_of_one_worker_is_refused_where_it_would_lose_samples(as_worker):
    def dataset(**options):
        return xtd.IterableDataset(numbered(40), {"time": 1}, batch_size=4, **options)

    as_worker(0, 2)
    first = dataset()
    next(iter(first))
    state = first.state_dict()
    with pytest.raises(ValueError, match="world_size 1 in the state, 2 here"):
        dataset(rank=0, world_size=2).load_state_dict(state)
    as_worker(1, 2)
    with pytest.raises(ValueError, match="worker 0 in the state, 1 here"):
        dataset().load_state_dict(state)
    as_worker(0, 0)
    with pytest.raises(ValueError, match="taken in a loader worker"):
        dataset().load_state_dict(state)
    whole = dataset().state_dict()
    as_worker(0, 2)
    with pytest.raises(ValueError, match="not of a loader worker"):
        dataset().load_state_dict(whole)


@IN_TORCHDATA
def test_the_stateful_example_loses_no_batch(tmp_path):
    main = load("train_stateful.py")["main"]
    before = main(tmp_path / "state.pt", epochs=1, steps=5)
    after = main(tmp_path / "state.pt", epochs=1)
    assert len(before) == 5
    assert_once(flat(before + after), SAMPLES)
