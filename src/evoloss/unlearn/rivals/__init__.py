"""Unlearning methods that are no expressions of the loss language, to compare found losses with.

Their constants are tuned among the values that OpenUnlearning (Dorna et al. 2025) tuned them among,
where it did.
"""

from __future__ import annotations

from collections.abc import Mapping

from evoloss.unlearn.rivals.idk_dpo import IdkDPO
from evoloss.unlearn.rivals.rival import Constant, Context, Rival, Variant
from evoloss.unlearn.rivals.rmu import RMU, fitting
from evoloss.unlearn.rivals.undial import UNDIAL

_ALPHA = Constant(1.0, (1.0, 2.0, 5.0))

RIVALS: Mapping[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(
            "IdkDPO",
            "Rafailov et al. 2023, arXiv 2305.18290; Maini et al. 2024, arXiv 2401.06121",
            {"beta": Constant(0.1, (0.05, 0.1, 0.5)), "alpha": _ALPHA},
            IdkDPO,
        ),
        Rival(
            "RMU",
            "Li et al. 2024, arXiv 2403.03218",
            {
                "layer": Constant(7.0, (1.0, 3.0, 5.0, 7.0, 10.0, 15.0)),
                "coefficient": Constant(2.0, (1.0, 2.0, 10.0, 100.0)),
                "alpha": Constant(1.0, (1.0, 10.0, 100.0)),
            },
            RMU,
            fitting=fitting,
        ),
        Rival(
            "UNDIAL",
            "Dong et al. 2024, arXiv 2402.10052",
            {"beta": Constant(10.0, (3.0, 10.0, 30.0)), "alpha": _ALPHA},
            UNDIAL,
            lr=1e-4,
        ),
    )
}

__all__ = ["RIVALS", "Constant", "Context", "Rival", "Variant"]
