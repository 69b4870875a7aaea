"""The files of a public model: JSON, and weights in one file or in shards, as safetensors or `.bin`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from asr.errors import AsrError
from asr.public.hub import INDEX, WEIGHTS


class Source:
    """The folder of a public model. Everything that is missing or broken raises AsrError with its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The path of a file that must exist."""
        path = self.folder / name
        if not path.is_file():
            raise AsrError(f"{self.folder}: no {name} in this folder; download it again, with all its files")
        return path

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.folder / name).is_file()

    def text(self, name: str) -> str:
        """The content of a text file that must exist."""
        path = self.path(name)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise AsrError(f"{path}: cannot be read as text ({error}); download it again") from None

    def json(self, name: str, optional: bool = False) -> dict[str, Any]:
        """The values of a JSON file. An optional file that is missing has none."""
        if optional and not self.has(name):
            return {}
        text, path = self.text(name), self.path(name)
        try:
            values = json.loads(text)
        except ValueError as error:
            raise AsrError(f"{path}: cannot be read as JSON ({error}); download it again") from None
        if not isinstance(values, dict):
            raise AsrError(f"{path}: not a JSON object; download it again")
        return values

    def weights(self) -> Weights:
        """The weights, in whichever form there are some."""
        for name in WEIGHTS:
            if self.has(name):
                return Weights([self.path(name)])
            if self.has(name + INDEX):
                table = self.json(name + INDEX).get("weight_map")
                if not isinstance(table, dict) or not all(isinstance(shard, str) for shard in table.values()):
                    raise AsrError(f"{self.folder / (name + INDEX)}: no weight_map; download it again")
                weights = Weights([self.path(shard) for shard in sorted(set(table.values()))])
                if missing := sorted(set(table) - set(weights.names)):
                    raise AsrError(f"{self.folder}: the shards lack {missing[0]}; download them again")
                return weights
        raise AsrError(
            f"{self.folder}: no {WEIGHTS[0]} in this folder; download it again, with all its files"
        )


class Weights:
    """Tensors of one or more files, read when they are asked for. Nothing that is loaded can run code."""

    def __init__(self, paths: list[Path]) -> None:
        self._files: dict[str, Any] = {}  # the open file, or the tensors, that have each name
        for path in paths:
            opened = self._open(path)
            self._files |= dict.fromkeys(opened.keys(), opened)

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._files)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32. Raises KeyError when there is none of this name."""
        file = self._files[name]
        tensor: Tensor = file[name] if isinstance(file, dict) else file.get_tensor(name)
        return tensor.float()

    @staticmethod
    def _open(path: Path) -> Any:
        try:
            if path.suffix == ".safetensors":
                return safe_open(path, "pt")
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's loader has no error of its own for damaged files
            reason = " ".join(str(error).split())[:100]
            raise AsrError(
                f"{path}: cannot be read, it is cut short or damaged ({reason}); download it again"
            ) from None
        if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
            raise AsrError(f"{path}: not a table of tensors; download it again")
        return tensors
