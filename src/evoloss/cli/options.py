"""Arguments and options that several commands share, each with its type."""

from pathlib import Path
from typing import Annotated

import typer

Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK", help="A name (see `evoloss tasks`), a table file, or module:function."
    ),
]
Subject = Annotated[
    str,
    typer.Argument(
        metavar="RUN_OR_EXPRESSION",
        help="A run directory, DIRECTORY:ID for another than its best loss, an expression such as "
        "'square(y - f)', or a name of `evoloss zoo`.",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
Network = Annotated[
    str | None,
    typer.Option(
        help="Base network: linear, mlp:64,64, lenet5, all-cnn-c, resnet8, resnet18, wrn-16-4, "
        "char-gru, timm:NAME, torchvision:NAME or module:factory.",
        show_default="the task's own",
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Where the files of a data set are.", show_default=False)
]
Target = Annotated[
    str | None, typer.Option(help="The target column of a table file.", show_default=False)
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="regression or classification, for a table file.", show_default="by the target"
    ),
]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")
]
SEEDS = "Trainings of each loss in the final comparison."
STEPS = "Training steps in the final comparison."
AS_TOLD = "as the search was told"
Seeds = Annotated[int, typer.Option(help=SEEDS, min=1)]
Steps = Annotated[int | None, typer.Option(help=STEPS, show_default="the task's own", min=1)]
OtherSeeds = Annotated[int | None, typer.Option(help=SEEDS, show_default=AS_TOLD, min=1)]
OtherSteps = Annotated[int | None, typer.Option(help=STEPS, show_default=AS_TOLD, min=1)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Do not show the progress.")]
NoRun = Annotated[str | None, typer.Argument(hidden=True)]
"""What is refused with a sentence of its own."""
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        help="Also send the progress to tensorboard:FOLDER or mlflow:URI; may be repeated.",
        show_default=False,
    ),
]
MaxCandidates = Annotated[
    int | None,
    typer.Option(
        help="Make no more losses than these, duplicates counted.", show_default="no limit", min=1
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        help="Begin no generation after so many gradient steps; finalists are not counted.",
        show_default="no limit",
        min=1,
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        help="Begin no generation after so many seconds of search; finalists are not counted.",
        show_default="no limit",
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        help="End when the language model may use no more tokens.", show_default="no limit", min=1
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        help="End when the language model may cost no more, by its prices.", show_default="no limit"
    ),
]
Out = Annotated[Path | None, typer.Option(help="Directory of the run.", show_default="runs/TASK-N")]
Seed = Annotated[int, typer.Option(help="The whole search follows from it.", min=0)]
Against = Annotated[
    str,
    typer.Option(
        help="Known losses and methods to compare with, separated by commas; each is tuned."
    ),
]
Tune = Annotated[
    int | None,
    typer.Option(
        help="Trainings that each of them is tuned in.",
        show_default="as many as the search took, and its steps too but for `demo`",
        min=1,
    ),
]
DEFAULT_AGAINST = "ga,grad-diff,npo,sim-npo"
Others = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting, such as implicit_terms=20; may be repeated.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where networks are trained: cpu, cuda, cuda:1 …, or auto.", show_default="cpu"
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that tune and train, 0: none but this one; the history is the same for any "
        "number of them (unlearning on GPUs: for any number from 1 on).",
        show_default="none; one a core for networks on the CPU that are no perceptrons",
        min=0,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Tune and train on a Ray cluster: HOST:PORT, auto, or nothing for one on this "
        "machine.",
        show_default=False,
    ),
]
WorkerSeconds = Annotated[
    float | None,
    typer.Option(
        help="What takes a worker longer, a candidate and stage, has failed.",
        show_default="3600; for unlearning 86400",
    ),
]
WorkerMemory = Annotated[
    float | None,
    typer.Option(help="GiB that a worker may hold.", show_default="its share of the machine's"),
]
GpusPerShard = Annotated[
    float | None,
    typer.Option(
        help="GPUs that Ray sets aside for each shard, such as 0.5; without any, it works on CPUs.",
        show_default="0",
        min=0,
    ),
]
