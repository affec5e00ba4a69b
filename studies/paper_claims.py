"""The results of the paper: what it says of each, and the number of ours that is held against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
PLANS, RESULTS_FOLDER = HERE / "paper", HERE / "results"
BASELINES, BEST, BOUND, ENERGY = "baselines", "best_model", "bound", "energy"
BOUND_PLACE = "sst2-all-mpnet-base-v2"
LITERAL, RECOMMENDED, REGRESSION = "the paper's head", "recommended", "logistic regression"


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, and the number of a study to hold against it.

    Attributes:
        says: What the paper says, in a few words.
        kind: The number of the study: the accuracy of `head`, its difference from `reference`, the effect of `factor`,
            or the slope of accuracy on `factor`; or the crossover of the energies.
        head: A head of the study, or parts of names: of the heads that they fit, the one with the lowest mean
            validation loss.
        value: The paper's number, as a fraction or in qubits; None if it gives a direction only.
        direction: 1 if the paper says that the number is above zero, -1 if below; 0 if its direction is not known.
    """

    says: str
    kind: Literal["accuracy", "difference", "effect", "trend", "crossover"]
    head: str | tuple[str, ...] = LITERAL
    reference: str = REGRESSION
    factor: str = ""
    value: float | None = None
    direction: int = 0

    @property
    def is_known(self) -> bool:
        """Whether the paper's number or its direction could be had."""
        return self.value is not None or self.direction != 0


@dataclass(frozen=True)
class Result:
    """A result of the paper: the name of its study, a title and the claims."""

    name: str
    title: str
    claims: tuple[Claim, ...]


def folder_of(name: str, results: Path) -> Path:
    """Return the folder of a result; the bound is that of table.py."""
    return results / "table" / BOUND_PLACE / "end-to-end" if name == BOUND else results / "paper" / name


UNKNOWN = "a scan, whose numbers could not be had"
INCREASE = "accuracy increases with the number of qubits"
SEVERAL = "92.70 % with several encoders, 90.21 % with one"
MODULES = "each module contributes"


def _trend(factor: str, says: str, direction: int, *heads: str) -> tuple[Claim, ...]:
    return tuple(Claim(says, "trend", head, factor=factor, direction=direction) for head in heads)


def _module(head: str) -> Claim:
    return Claim(f"{MODULES} ({head})", "difference", head, reference="whole head", direction=-1)


def _under(
    name: str, measurement: str, qubits: str, merges: tuple[str, ...], training: tuple[str, ...]
) -> tuple[Result, ...]:
    """Return the scans of qubits, encoders and re-uploads under shots or noise; `qubits` is the factor of the first."""

    def heads(*variants: str) -> tuple[str, ...]:
        return tuple(f"{variant}, {trained}" for variant in variants for trained in training)

    merged = heads(*(f"{LITERAL}, {merge}" for merge in merges))
    return (
        Result(f"{name}_qubits", f"Qubits under {measurement}", _trend(qubits, INCREASE, 1, *heads(LITERAL))),
        Result(f"{name}_encoders", f"Encoders under {measurement}", _trend("head.n_encoders", SEVERAL, 1, *merged)),
        Result(
            f"{name}_reuploads",
            f"Re-uploads under {measurement}",
            _trend("head.n_reuploads", UNKNOWN, 0, *heads(LITERAL)),
        ),
    )


BOTH = (LITERAL, RECOMMENDED)
RESULTS = (
    Result("baselines", "Classical baselines", (Claim("89.56 %, an SVC", "accuracy", "SVC (RBF)", value=0.8956),)),
    Result(
        "qubits",
        "Qubits",
        (
            Claim("90.21 % with one encoder on 10 qubits", "accuracy", LITERAL, value=0.9021),
            *_trend("head.n_qubits", INCREASE, 1, LITERAL),
        ),
    ),
    Result("qubits_recommended", "Qubits of the recommended head", _trend("head.n_qubits", INCREASE, 1, RECOMMENDED)),
    Result("qubits_components", "Qubits on principal components", _trend("head.components", INCREASE, 1, *BOTH)),
    Result(
        "encoders",
        "Encoders",
        _trend(
            "head.n_encoders",
            SEVERAL,
            1,
            "the paper's head, side by side",
            "the paper's head, averaged",
            "the paper's head on 768 dimensions, averaged",
            "recommended, side by side",
            "recommended, averaged",
        ),
    ),
    *(
        Result(
            name,
            title,
            tuple(
                Claim(SEVERAL, "difference", head, "the paper's head, one encoder", direction=1)
                for head in ("the paper's head, two encoders", "the paper's head, two averaged")
            ),
        )
        for name, title in (
            ("encoders_slices", "Two encoders on slices (18 qubits)"),
            ("encoders_whole", "Two encoders on the whole embedding (20 qubits)"),
        )
    ),
    Result("reuploads", "Re-uploads", _trend("head.n_reuploads", UNKNOWN, 0, *BOTH)),
    *_under(
        "shots", "1,000 shots", "head.n_qubits", ("side by side", "averaged"), ("trained with shots", "trained exactly")
    ),
    *_under(
        "noise",
        "gate noise",
        "head.components",
        ("averaged",),
        tuple(f"{rate}, trained with it" for rate in ("Forte / 10", "Forte", "Forte x 3")),
    ),
    Result("connectivity", "Connectivity", _trend("head.connectivity", UNKNOWN, 0, *BOTH)),
    Result(
        "depth",
        "Depth",
        (
            *_trend("head.encoder_layers", f"encoder (M): {UNKNOWN}", 0, *BOTH),
            *_trend("head.main_layers", f"main circuit (R): {UNKNOWN}", 0, *BOTH),
        ),
    ),
    Result("learning_rate", "Learning rate", _trend("train.learning_rate", UNKNOWN, 0, *BOTH)),
    Result(
        "screening",
        "Screening of main effects",
        (Claim(INCREASE, "effect", "quantum head", factor="head.n_qubits", direction=1),),
    ),
    Result(
        "ablation",
        "Ablation",
        tuple(
            map(
                _module, ("no encoder circuit", "no re-uploading", "no circuit between the loadings", "no main circuit")
            )
        ),
    ),
    Result(
        "best_model",
        "Best model",
        (
            Claim(
                "92.70 % with 14 qubits and 886 parameters",
                "accuracy",
                ("qubits side by side", "qubits averaged"),
                value=0.927,
            ),
            Claim(
                "3.14 points above the best classical head (here: above logistic regression)",
                "difference",
                ("qubits side by side", "qubits averaged"),
                value=0.0314,
            ),
        ),
    ),
    Result("bound", "Bound: the body trained end to end", (Claim("93.62 %", "accuracy", REGRESSION, value=0.9362),)),
    Result("energy", "Energy", (Claim("crossover at 46 qubits", "crossover", value=46),)),
)
"""All results in the order of the page. Studies of the folder that are not here have a section without a claim."""
