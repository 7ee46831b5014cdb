"""The layouts of TOFU, MUSE and WMDP, from a folder into which the user has fetched them.

TOFU: Maini et al. 2024; MUSE: Shi et al. 2024; WMDP: Li et al. 2024. File and folder names are
those of the published data sets; JSON lines, JSON arrays and Parquet files are all read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evoloss.errors import UserError, unknown
from evoloss.unlearn.data.example import Choice, DataSet, Example, UnlearningData, normalised
from evoloss.unlearn.data.examples import read_choices, read_examples
from evoloss.unlearn.data.files import SUFFIXES, find
from evoloss.unlearn.data.sets import checked

TOFU_SPLITS = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
MUSE_CORPORA = {"news": "MUSE-News", "books": "MUSE-Books"}
WMDP_DOMAINS = ("bio", "cyber")
WMDP_QUESTIONS = ("bio", "cyber", "chem")

NAMES = (
    *(f"tofu:{split}" for split in TOFU_SPLITS),
    *(f"muse:{corpus}" for corpus in MUSE_CORPORA),
    *(f"wmdp:{domain}" for domain in WMDP_DOMAINS),
)


def load(name: str, directory: Path) -> UnlearningData:
    """The benchmark of one of the `NAMES`, from the folder.

    Raises: UserError for an unknown name, or for a missing file with the command that fetches it.
    """
    if name not in NAMES:
        raise unknown("benchmark", name, NAMES)
    if not directory.is_dir():
        raise UserError(f"no folder '{directory}' for '{name}': make it and fetch the data into it")
    family, _, part = name.partition(":")
    read = {"tofu": tofu, "muse": muse, "wmdp": wmdp}[family]
    return checked(read(part, directory))


def tofu(split: str, directory: Path) -> UnlearningData:
    """Fictitious authors: questions with paraphrases and perturbed answers where there are any."""
    here = _Folder(directory, "locuslab/TOFU")
    forget = _completed(here.examples(split), here.examples(f"{split}_perturbed"))
    retain = _completed(here.examples(TOFU_SPLITS[split]), here.examples("retain_perturbed"))
    facts = ("real_authors", "world_facts")
    probes = {name: here.examples(f"{name}_perturbed") for name in facts}
    holdout = here.optional(split.replace("forget", "holdout"))
    return UnlearningData(f"tofu:{split}", forget, retain, holdout, probes)


def muse(corpus: str, directory: Path) -> UnlearningData:
    """News articles or books as texts, with the questions that tell whether they are known.

    Unlearning is given `retain1`, as MUSE means it; `retain2`, which is for evaluation, is a probe.
    """
    published = MUSE_CORPORA[corpus]
    inside = [each for each in (directory / published, directory / corpus) if each.is_dir()]
    here = _Folder(inside[0] if inside else directory, f"muse-bench/{published}")
    probes = {
        "retain2": here.examples("raw/retain2"),
        "forget_verbmem": here.examples("verbmem/forget", rename={"gt": "answer"}, continues=True),
        "forget_knowmem": here.examples("knowmem/forget_qa"),
        "retain_knowmem": here.examples("knowmem/retain_qa", "knowmem/retain2_qa"),
        "forget_privleak": here.examples("privleak/forget"),
    }
    return UnlearningData(
        f"muse:{corpus}",
        here.examples("raw/forget"),
        here.examples("raw/retain1"),
        here.examples("privleak/holdout"),
        probes,
    )


def wmdp(domain: str, directory: Path) -> UnlearningData:
    """Corpora of hazardous knowledge, and multiple-choice questions on it; MMLU if it is there."""
    corpora = _Folder(directory, "cais/wmdp-corpora")
    gated = _Folder(directory, "cais/wmdp-bio-forget-corpus")
    tests = _Folder(directory, "cais/wmdp")
    forget = (
        gated.examples("bio-forget-corpus", "bio_remove_dataset")
        if domain == "bio"
        else corpora.examples(f"{domain}-forget-corpus")
    )
    choices = {f"wmdp_{domain}": tests.choices(*_questions(domain))}
    for other in WMDP_QUESTIONS:
        if other != domain and (found := find(directory, _questions(other))):
            choices[f"wmdp_{other}"] = read_choices(found, f"wmdp_{other}")
    if found := find(directory, ["mmlu/all/test", "mmlu/test", "mmlu"]):
        choices["mmlu"] = read_choices(found, "mmlu")
    retain = corpora.examples(f"{domain}-retain-corpus")
    return UnlearningData(f"wmdp:{domain}", forget, retain, choices=choices)


def _questions(domain: str) -> list[str]:
    return [f"wmdp-{domain}/test", f"wmdp-{domain}"]


class _Folder:
    """Finds files in a folder, and says how to get the ones that are missing."""

    def __init__(self, directory: Path, published: str) -> None:
        self.directory = directory
        self.published = published

    def examples(
        self, *names: str, rename: dict[str, str] | None = None, continues: bool = False
    ) -> DataSet[Example]:
        """The first of the names that is there."""
        return read_examples(self._files(names), names[0], rename=rename, continues=continues)

    def optional(self, name: str) -> DataSet[Example] | None:
        """The set of that name if it is there."""
        return self.examples(name) if find(self.directory, [name]) else None

    def choices(self, *names: str) -> DataSet[Choice]:
        """As `examples`, of multiple-choice questions."""
        return read_choices(self._files(names), names[0])

    def _files(self, names: Sequence[str]) -> list[Path]:
        if found := find(self.directory, names):
            return found
        raise UserError(
            f"no file {' or '.join(names)} ({', '.join(SUFFIXES)}) in '{self.directory}': fetch it "
            f"with `hf download {self.published} --repo-type dataset --local-dir {self.directory}`"
        )


def _completed(plain: DataSet[Example], richer: DataSet[Example]) -> DataSet[Example]:
    """The rows of the first set with paraphrases and perturbed answers from the second."""
    known = {_identity(example): example for example in richer}
    rows = tuple(
        replace(known[key], row=example.row) if (key := _identity(example)) in known else example
        for example in plain
    )
    return replace(plain, rows=rows, notes=(*plain.notes, *richer.notes))


def _identity(example: Example) -> tuple[str, str]:
    return normalised(example.prompt), normalised(example.answer)
