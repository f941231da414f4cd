"""Weights & Biases beside TensorBoard and CSV. The service may fail in any way: training goes on without it."""

import importlib
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridvit.errors import UsageError
from hybridvit.training.observe import Observer, Row

START_SECONDS = 60.0  # to reach the service
FINISH_SECONDS = 120.0  # to send what is left; the rest stays on disk

log = logging.getLogger(__name__)


def require_wandb() -> Any:
    """The package. Raises UsageError, with what to install, if it is not there: before the first step."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UsageError(
            "Recipe key 'wandb' is set, but the package wandb is not installed. Install it, pip install "
            '"hybridvit[wandb]", or set the key to "": TensorBoard and CSV are written in any case.'
        ) from error


class WeightsAndBiases(Observer):
    """Logs to one run of `project`, and after a resume to the same one.

    The variables of the service are honoured, WANDB_MODE=offline above all; without a login nothing is asked. After
    a failure there is one warning, and no further attempt until the run is resumed.

    Args:
        run_id: of the run to go on with; "" for a new one.
        folder: of the run; its `wandb/` takes the local files.
        config: the recipe, as plain values.
    """

    def __init__(self, project: str, *, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.run_id = run_id or secrets.token_hex(4)
        self._run: Any = None
        self._sent_step = -1  # in a resumed run: what a killed session had sent, which comes again equal
        wandb = require_wandb()
        try:
            wandb.setup(wandb.Settings(silent=True))  # asks nothing, prints nothing over the bar
            self._run = wandb.init(
                project=project,
                name=folder.name,
                id=self.run_id,
                resume="allow",
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(
                    console="off", silent=True, init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS
                ),
            )
            self._sent_step = self._run.step - 1
        except Exception as error:  # its own errors, network errors, broken files: training is worth more than any
            self._give_up("start", error)

    @property
    def address(self) -> str:
        """Of the run's page; empty if there is none."""
        return str(getattr(self._run, "url", None) or "")

    def logged(self, row: Row) -> None:
        self._send("train", row)

    def validated(self, row: Row) -> None:
        self._send("validation", row)

    def ended(self, error: BaseException | None) -> None:
        if self._run is not None:
            try:
                self._run.finish()
            except Exception as failure:
                self._give_up("finish", failure)

    def _send(self, group: str, row: Row) -> None:
        step = int(row["step"])
        if self._run is None or step <= self._sent_step:
            return
        values = {f"{group}/{name}": value for name, value in row.items() if name != "step"}
        try:
            self._run.log(values, step=step)
        except Exception as error:
            self._give_up("take numbers", error)

    def _give_up(self, what: str, error: Exception) -> None:
        self._run = None
        log.warning(
            "Weights & Biases did not %s (%s: %s), and the run goes on without it. `wandb login` signs in, "
            "WANDB_MODE=offline keeps the numbers on this machine for a later `wandb sync`.",
            what,
            type(error).__name__,
            " ".join(str(error).split())[:200],
        )
