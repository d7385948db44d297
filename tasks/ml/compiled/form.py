"""A form: a compiled model as plain data, from rows to answers with numpy alone; trees run in ONNX Runtime."""

import io
import zipfile
from typing import Any, Self

import msgspec
import numpy as np

from tasks.ml.compiled.encode import Block, Given
from tasks.ml.compiled.score import Ending, Model, Session
from tasks.ml.tastes import Tastes

SCHEMA = "schema.json"


class Form(msgspec.Struct, frozen=True):
    """One compiled pipeline.

    Attributes:
        columns: what it reads, in the order of the pipeline.
        blocks: what is made of them, one beside the other: (n, width) float64.
        names: of the made columns.
        model: what scores them; endings: what becomes of scores, one after the other.
        classes: of the answers, as the pipeline orders them.
    """

    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    names: tuple[str, ...]
    model: Model
    endings: tuple[Ending, ...] = ()
    classes: tuple[str | int | float | bool, ...] = ()

    @property
    def runs_graph(self) -> bool:
        """Whether it needs the graph that lies beside it."""
        return self.model.runs_graph

    def encode(self, given: Given) -> np.ndarray:
        """What the model scores: (n, width) float64."""
        made = [block.of(given) for block in self.blocks]
        return made[0] if len(made) == 1 else np.concatenate(made, axis=1)

    def answers(self, encoded: np.ndarray, session: Session | None) -> np.ndarray:
        """What it says of encoded rows: probabilities (n, classes), numbers (n,), or oddness (n,).

        Raises:
            ValueError: a value is beyond what the model can hold.
        """
        if isinstance(self.model, Tastes):
            raise TypeError("a form that recommends scores no rows")
        scores = self.model.scores(encoded, session)
        for ending in self.endings:
            scores = ending.of(scores)
        return scores

    def top(self, given: Given, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each row the k best items and their scores, (n, k) each; of a recommender."""
        if not isinstance(self.model, Tastes):
            raise TypeError("a form that scores rows recommends nothing")
        (user,) = given.texts(self.blocks[0].columns) if self.blocks else ([None] * given.count,)
        return self.model.best_for(user, k)

    def packed(self) -> bytes:
        """The form as a file: an archive, not compressed, of `schema.json` and the arrays that it numbers; equal forms, equal bytes."""
        arrays: list[np.ndarray] = []

        def numbered(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                raise NotImplementedError(type(value))
            arrays.append(value)
            return len(arrays)

        schema = msgspec.json.encode(self, enc_hook=numbered)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, array in enumerate(arrays, start=1):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{number}.npy"), member.getvalue())
            archive.writestr(zipfile.ZipInfo(SCHEMA), schema)
        return buffer.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> Self:
        """The form of a file that `packed` gave; arrays of objects are not read.

        Raises:
            ValueError: it is none.
        """
        with zipfile.ZipFile(io.BytesIO(content)) as archive:

            def read(_kind: type, number: Any) -> np.ndarray:
                return np.lib.format.read_array(io.BytesIO(archive.read(f"{int(number)}.npy")), allow_pickle=False)

            try:
                return msgspec.json.decode(archive.read(SCHEMA), type=cls, dec_hook=read)
            except KeyError as error:
                raise ValueError(f"the file lacks {error}") from error
