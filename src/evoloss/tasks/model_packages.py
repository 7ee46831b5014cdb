"""Base networks of the packages timm and torchvision, where they are installed: `timm:resnet18`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from evoloss.errors import UserError
from evoloss.tasks.plugin import describe, did_you_mean
from evoloss.tasks.task import NetworkFactory

PACKAGES = ("timm", "torchvision")
_COLOURS = 3


def package_factory(spec: str, input_shape: tuple[int, ...], outputs: int) -> NetworkFactory:
    """A factory of a package's untrained model for (N, *input_shape) images.

    Raises: UserError if the package is missing, has no such model, or the inputs do not suit it.
    """
    package, _, name = spec.partition(":")
    if len(input_shape) != 3:
        raise UserError(
            f"network '{spec}' takes images (channels, height, width), "
            f"not inputs of shape {input_shape}: use mlp:64,64"
        )
    models = _import("timm" if package == "timm" else "torchvision.models", spec)
    _check_known(spec, name, models.list_models())
    if package == "timm":
        return partial(models.create_model, name, num_classes=outputs, in_chans=input_shape[0])
    if input_shape[0] != _COLOURS:
        raise UserError(
            f"network '{spec}' takes images of {_COLOURS} channels, not {input_shape[0]}: "
            f"use timm:{name}, or resnet18"
        )
    return partial(models.get_model, name, num_classes=outputs)


def _import(module: str, spec: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise UserError(f"importing '{module}' failed: {describe(error)}") from error
        raise UserError(
            f"network '{spec}' needs the package {package}: pip install {package}"
        ) from error
    except Exception as error:  # a build for another torch fails in many ways
        raise UserError(f"importing '{module}' failed: {describe(error)}") from error


def _check_known(spec: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name.partition(".")[0] not in names:  # timm's names may go on with a tag of weights
        package = spec.partition(":")[0]
        raise UserError(
            f"{package} has no model '{name}'{did_you_mean(name, names)}: "
            f"{package}'s list_models() names its {len(names)}"
        )
