"""What PyTorch Lightning needs beside a `DataLoader`; importing this imports ``lightning``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException

from .loading.loader import DataLoader

__all__ = ["AnyTopology"]


class AnyTopology(lightning.Callback):
    """Callback that lets an epoch go on with another number of ranks, or another batch size.

    Lightning ends an epoch when its count of batches reaches the length of the loader. A loader
    that resumes on another topology has fewer or more batches left than that; this corrects the
    count. Where nothing has changed, and in checkpoints at the end of an epoch, it does nothing.

    Parameters
    ----------
    loader : DataLoader, optional
        The training loader, if it is given to ``trainer.fit``. That of a data module, or of the
        module's own ``train_dataloader``, is made once more to ask it.

    Raises
    ------
    TypeError
        When a checkpoint is loaded, if there is no such loader or it is not an
        `xtorch_data.DataLoader`.

    Examples
    --------
    >>> import lightning
    >>> trainer = lightning.Trainer(callbacks=[AnyTopology()], logger=False, accelerator="cpu")
    """

    def __init__(self, loader: DataLoader | None = None) -> None:
        self.loader = loader

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Correct the count of batches in a checkpoint, before Lightning takes it."""
        progress = checkpoint["loops"]["fit_loop"]
        states = progress["state_dict"].get("combined_loader")
        if not states:
            return
        loader = self._loader(trainer, pl_module)
        before, whole = loader.state_dict(), len(loader)
        loader.load_state_dict(states[0])
        done = whole - len(loader)
        loader.load_state_dict(before)  # Lightning gives it the state when its turn comes
        counts = progress["epoch_loop.batch_progress"]["current"]
        if not done and counts["ready"]:
            done = whole  # an epoch's end is the beginning of the next
        more = done - counts["ready"]
        counts.update({key: count + more for key, count in counts.items()})

    def _loader(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> DataLoader:
        loader = self.loader
        if loader is None:
            made_by = getattr(trainer, "datamodule", None) or module
            try:
                loader = made_by.train_dataloader()
            except MisconfigurationException:
                raise TypeError(
                    "the training loader was given to trainer.fit: give it to AnyTopology, too"
                ) from None
        if not isinstance(loader, DataLoader):
            raise TypeError(
                "AnyTopology is for a training loader that is an xtorch_data.DataLoader, not "
                f"{type(loader).__name__}"
            )
        return loader
