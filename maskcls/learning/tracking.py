"""Where a job's numbers go: ``metrics.jsonl``, two pictures and, if wanted, TensorBoard and W&B."""

from __future__ import annotations

import json
import logging
import math
import textwrap
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from maskcls import labels
from maskcls.labels import UInt8Array
from maskcls.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


log = logging.getLogger(__name__)
FILE: Final = "metrics.jsonl"
COLUMNS: Final = (
    "epoch",
    "train/loss",
    "train/lr",
    "val/loss",
    "val/accuracy",
    "val/macro_f1",
    "val/macro_precision",
    "val/macro_recall",
    "seconds",
)
"""What is known of every epoch."""

MISTAKES: Final = 10
"""Photos that ``mistakes.png`` shows at most."""

WANDB_PATIENCE_S: Final = 30.0
"""How long W&B may take to start a run, and to finish one."""


class Tracker:
    """Writes what one job tells to its ``folder``, to TensorBoard and to W&B.

    Runs of one ``group`` and ``job_type`` stand together in W&B; a job that is resumed goes on in
    the same W&B run. Whatever goes wrong with W&B is logged once and ends W&B, never the job.
    """

    def __init__(
        self,
        *,
        folder: Path,
        run_name: str,
        group: str,
        job_type: str,
        config: dict[str, Any],
        tensorboard: bool = False,
        wandb: Literal["off", "offline", "online"] = "off",
        wandb_project: str = "maskcls",
        wandb_entity: str | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._tensorboard = tensorboard
        self._writer: Any = None
        self._run: Any = None
        if wandb != "off":
            self._guarded(
                "start",
                lambda: self._start_wandb(
                    mode=wandb,
                    project=wandb_project,
                    entity=wandb_entity,
                    name=run_name,
                    group=group,
                    job_type=job_type,
                    config=config,
                ),
            )

    def epoch(self, values: Mapping[str, float]) -> None:
        """Record an epoch, numbered from 1 by ``values["epoch"]``.

        An epoch that is told again replaces its line, and those after it, which a resumed job
        will tell again too.
        """
        number = int(values["epoch"])
        earlier = [line for line in _read(self._folder) if line["epoch"] < number]
        text = "".join(json.dumps(_finite(line)) + "\n" for line in (*earlier, values))
        files.write_text(self._folder / FILE, text)
        plotted = {name: value for name, value in values.items() if name not in ("epoch", "epochs")}
        if self._tensorboard:
            writer = self._open_writer(purge_step=number)
            for name, value in plotted.items():
                writer.add_scalar(name, value, number)
            writer.flush()
        # W&B ignores a step that it has had already.
        self._wandb("log", lambda run: run.log({**plotted, "epoch": number}, number, commit=True))

    def confusion(
        self,
        matrices: Mapping[str, npt.NDArray[np.int64]],
        age_limits: labels.AgeLimits = labels.AGE_BAND_STARTS,
    ) -> None:
        """Draw ``confusion.png``: one matrix [truth, predicted] of photo counts for each head."""
        path = self._draw("confusion", _confusion_figure(matrices, age_limits).savefig)
        self._wandb("log", lambda run: run.log({"confusion": _wandb_image(path)}))

    def mistakes(self, images: Sequence[UInt8Array], captions: Sequence[str]) -> None:
        """Draw ``mistakes.png``: the first ten of the wrong photos [H, W, 3]; nothing for none."""
        images, captions = images[:MISTAKES], captions[:MISTAKES]
        if not images:
            return
        self._draw("mistakes", _mistakes_picture(images, captions).save)
        self._wandb(
            "log", lambda run: run.log({"mistakes": list(map(_wandb_image, images, captions))})
        )

    def finish(self, scores: Mapping[str, float]) -> None:
        """Record the scores of the best epoch and close everything."""
        best = {f"best/{name}": value for name, value in scores.items()}
        if self._tensorboard:
            writer = self._open_writer()
            for name, value in best.items():
                writer.add_scalar(name, value)
            writer.close()
        self._wandb("log", lambda run: run.summary.update(best))
        self._wandb("finish", lambda run: run.finish())

    def _draw(self, name: str, save: Callable[[Path], object]) -> Path:
        path = self._folder / f"{name}.png"
        with files.replacing(path) as temporary:
            save(temporary)
        if self._tensorboard:
            from matplotlib.image import imread

            self._open_writer().add_image(name, imread(path), dataformats="HWC")
        return path

    def _open_writer(self, purge_step: int | None = None) -> Any:
        """TensorBoard's writer; when first opened it hides earlier events from that step on."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)
        return self._writer

    def _start_wandb(self, **options: Any) -> None:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=WANDB_PATIENCE_S,
            login_timeout=WANDB_PATIENCE_S,
            finish_timeout=WANDB_PATIENCE_S,
            finish_timeout_raises=True,
        )
        wandb.setup(settings)  # or the login, which knows no run's settings, is not silent
        self._run = wandb.init(
            **options,
            dir=self._folder,
            id=self._wandb_id(),
            resume="allow",
            reinit="finish_previous",
            settings=settings,
        )

    def _wandb_id(self) -> str:
        # Kept, not made from the folder's name: a job that is trained anew in the same place must
        # be a new run, as W&B ignores the epochs that the old one has.
        path = self._folder / "wandb_id.txt"
        if not path.is_file():
            files.write_text(path, uuid.uuid4().hex[:16])
        return path.read_text(encoding="utf-8")

    def _wandb(self, what: str, do: Callable[[Any], object]) -> None:
        if self._run is not None:
            self._guarded(what, lambda: do(self._run))

    def _guarded(self, what: str, do: Callable[[], object]) -> None:
        try:
            do()
        # Broad, as W&B raises errors of many libraries; none is worth hours of training.
        except Exception as error:
            self._run = None
            log.warning(
                "W&B could not %s (%s: %s); the job goes on without it, its numbers are in %s",
                what, type(error).__name__, error, self._folder / FILE,
            )  # fmt: skip


def read_metrics(folder: Path) -> pd.DataFrame:
    """The epochs of the job in ``folder`` in order, one a row; none where it has told nothing.

    Raises ValueError naming the file and line where that is not JSON.
    """
    lines = _read(folder)
    table = pd.DataFrame(lines, columns=None if lines else list(COLUMNS), dtype=float)
    return table.sort_values("epoch", ignore_index=True)


def console_line(job: str, values: Mapping[str, float]) -> str:
    """An epoch in a line; ``values["epochs"]`` is the number of epochs in all."""
    return (
        f"{job:<12}  epoch {values['epoch']:.0f}/{values['epochs']:.0f}"
        f"  loss {values['train/loss']:.3f}  val loss {values['val/loss']:.3f}"
        f"  macro F1 {values['val/macro_f1']:.3f}  accuracy {values['val/accuracy']:.3f}"
        f"  {values['seconds']:.1f} s"
    )


def _read(folder: Path) -> list[dict[str, float]]:
    path = folder / FILE
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: not one JSON object a line ({error}); delete it") from None


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """JSON knows no NaN and no infinity: null stands for both."""
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }


def _wandb_image(image: Path | UInt8Array, caption: str | None = None) -> Any:
    import wandb

    return wandb.Image(str(image) if isinstance(image, Path) else image, caption=caption)


def _confusion_figure(
    matrices: Mapping[str, npt.NDArray[np.int64]], age_limits: labels.AgeLimits
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sides = [1.6 + 0.55 * len(matrix_KK) for matrix_KK in matrices.values()]
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(sum(sides) + 1, max(sides) + 0.4), layout=layout)
    panels = figure.subplots(1, len(matrices), squeeze=False, width_ratios=sides)[0]
    for panel, (head, matrix_KK) in zip(panels, matrices.items(), strict=True):
        names = [name.replace("_", " ") for name in labels.class_names(head, age_limits)]
        shares_KK = matrix_KK / matrix_KK.sum(axis=1, keepdims=True).clip(1)
        panel.imshow(shares_KK, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix_KK):
            color = "white" if shares_KK[row, column] > 0.5 else "0.2"
            panel.text(column, row, count or "", ha="center", va="center", color=color, size=9)
        panel.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(names)), names)
        panel.tick_params(length=0)
        panel.spines[:].set_color("0.85")
        panel.set(title=head, xlabel="predicted", ylabel="truth")
    return figure


def _mistakes_picture(images: Sequence[UInt8Array], captions: Sequence[str]) -> Image.Image:
    # By hand: ten axes of Matplotlib take longer than a short job's last epoch.
    from PIL import Image, ImageDraw, ImageFont

    texts = [textwrap.fill(caption.replace("_", " "), 30) for caption in captions]
    above = 16 + 18 * max(text.count("\n") + 1 for text in texts)
    height, width = 350, round(350 * images[0].shape[1] / images[0].shape[0])
    columns = min(len(images), 5)
    cell = max(width, 220) + 20, above + height + 16
    picture = Image.new(
        "RGB", (columns * cell[0], math.ceil(len(images) / columns) * cell[1]), "white"
    )
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    for number, (image_HWC, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(number, columns)
        middle, base = round((column + 0.5) * cell[0]), row * cell[1] + above
        draw.multiline_text((middle, base - 6), text, "black", font, anchor="md", align="center")
        photo = Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BICUBIC)
        picture.paste(photo, (middle - width // 2, base))
    return picture
