"""Bundles: a releasable model on disk, `model.skops` beside the `manifest.json` whose SHA-256 the journal names and `manifest.sig` signs.

Beside them lies the model compiled, where it compiles: `model.zip`, arrays with a schema, and `model.onnx`, its graph, which other
languages read, too. Servers answer with those, and construct the skops file only where there are none, or for explanations. Then there
may be what tells how the model came about, and `hooks.py`, the code that a model with computed columns was trained with (`BESIDE`). The
manifest names the SHA-256 of each file; what it does not name is not read.
Nothing is ever unpickled. A skops file is an archive of arrays and a schema of type names; it is read only after its
bytes have proved to be those that were released, and only when every type in it is one that somebody has looked at.
"""

import functools
import hashlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.config.errors import ArtifactError, KeepfitError
from tasks.config.settings import Settings
from tasks.stores.seals import SEAL, SEAL_BYTES, Seals

if TYPE_CHECKING:
    from tasks.ml.compiled.form import Form
    from tasks.ml.computed import Computing

LOG = logging.getLogger("keepfit.bundles")
MODEL, MANIFEST, HOOKS = "model.skops", "manifest.json", "hooks.py"
FORM, GRAPH = "model.zip", "model.onnx"
SERVED = (FORM, GRAPH, HOOKS)  # what a server reads beside the model
BESIDE = frozenset({*SERVED, "footprint.json", "rows.bin", "answers.bin"})
Skew = Literal["refuse", "accept"]  # what becomes of a model that other versions of the libraries wrote

# What a bundle may hold beyond the types that skops itself trusts (scikit-learn's estimators and losses, numpy's
# arrays). Seen by dumping fitted pipelines of every family; a test does so again. Whoever adds a name looks at what its
# loading can do and says so here.
REVIEWED: tuple[str, ...] = (
    # The kind of numbers in an array, as an encoder's `dtype` parameter holds it: a description without code.
    "numpy.dtype",
    # One tree of HistGradientBoosting: three arrays. Compiled code follows their indices without looking at the bounds,
    # so that `_bounded` looks at them before a model is given out.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    # One tree of a forest: an array of nodes and one of values. Its setter checks their shapes and kinds; their indices,
    # which compiled code follows as above, are looked at by `_bounded`.
    "sklearn.tree._tree.Tree",
    # Calibration around a model: a list of the model with its calibrators, and these, a few numbers each. No code.
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    # How an encoder parted the rows that it was fitted on: three numbers.
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    # Ours: times as numbers. The names of its columns.
    "tasks.ml.transformers.DateParts",
    # Ours: recommenders. Arrays of numbers and names; numpy alone follows their indices, and looks at the bounds.
    "tasks.ml.recommenders.Favourites",
    "tasks.ml.recommenders.ItemNeighbours",
    "tasks.ml.recommenders.Factors",
)

MANIFEST_BYTES = 4 << 20
MIB = 1 << 20
MODEL_BYTES = 512 * MIB
DIRECTORY_BYTES = 8 << 20  # an archive's list of members is parsed at once: below a second at this size
MEMBERS = 65_535
MEMBER = re.compile(r"schema\.json|\d+\.(?:npy|bin)")
PINNED = ("scikit-learn", "skops", "numpy")
RUNTIME = "onnxruntime"  # pinned where there is a graph


class OversizedError(ArtifactError):
    """A model has more bytes than anybody reads of one; nothing was written."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes have proved to be the released ones; they stay as they are, whatever becomes of the files.

    Attributes:
        folder: where it lay, for messages.
        manifest: what is known of the model.
        files: the content of those that a server reads, of the manifest and of its seal.
    """

    folder: Path
    manifest: dict[str, Any]
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(map(len, self.files.values()))

    @property
    def served(self) -> dict[str, bytes]:
        """What a server reads beside the model."""
        return {name: self.files[name] for name in SERVED if name in self.files}

    def model(self) -> Any:
        """The model as scikit-learn has it, constructed anew.

        Raises:
            ArtifactError: it would grow beyond its size, holds types that were not reviewed, or does not load.
        """
        content = self.files[MODEL]
        _refuse_bomb(content, self.folder / MODEL)
        _refuse_unreviewed(content, self.folder)
        return _construct(content, self.folder)

    def form(self) -> "Form | None":
        """The compiled model; None where scikit-learn serves.

        Raises:
            ArtifactError: the file is none.
        """
        from tasks.ml.compiled.form import Form

        if FORM not in self.files:
            return None
        path = self.folder / FORM
        _refuse_bomb(self.files[FORM], path)
        try:
            form = Form.unpacked(self.files[FORM])
        except Exception as error:  # the content decides what is raised
            raise ArtifactError(
                f"{path} is no compiled model ({type(error).__name__}: {error}). Train and register the model again."
            ) from error
        if form.runs_graph and GRAPH not in self.files:
            raise ArtifactError(f"{path} needs {GRAPH}, which the manifest does not name. Register the model again.")
        return form

    def computing(self) -> "Computing | None":
        """As `computing`."""
        return _computing(self.folder, self.manifest, self.files.get(HOOKS))


def write(
    folder: Path, model: Any, manifest: dict[str, Any], beside: Mapping[str, bytes] | None = None, seals: Seals | None = None,
    first: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """Puts a fitted model and its manifest into a new folder, wholly or not at all, and gives the bundle's digest.

    The manifest gains `files` (SHA-256 by name), `versions` and `served by`, and a seal beside it. The same model written again has the
    same bytes, and so a repeated step changes nothing.

    Args:
        folder: where; it must not hold another bundle.
        model: a fitted pipeline of reviewed types.
        manifest: what a server must know of it.
        beside: more files, by their names in `BESIDE`.
        seals: the key that signs; by default that of this installation.
        first: what the manifest says of the first time that the model was written, such as how it was judged then.

    Raises:
        ArtifactError: the model holds types that were not reviewed, or the folder holds another bundle, or a file would
            be larger than one may be (`OversizedError`); nothing was changed.
    """
    content = _dumped(model)
    files = {MODEL: content, **(beside or {})}
    _refuse_oversized(files)
    _refuse_unreviewed(content, folder)
    pinned = (*PINNED, RUNTIME) if GRAPH in files else PINNED
    there = _parsed(folder, _bytes(folder / MANIFEST, MANIFEST_BYTES)) if folder.exists() else {}
    whole = {
        **manifest,
        **{name: there.get(name, value) for name, value in (first or {}).items()},
        **({} if FORM in files else {"because": manifest.get("because") or "it was not compiled"}),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "versions": {name: _installed(name) for name in pinned},
        "served by": "its compiled form" if FORM in files else "scikit-learn",
    }
    text = json.dumps(whole, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    digest = hashlib.sha256(text).hexdigest()
    if not folder.exists():
        _publish(folder, {**files, MANIFEST: text, SEAL: (seals or _here()).sign(digest)})
    found = hashlib.sha256(_bytes(folder / MANIFEST, MANIFEST_BYTES)).hexdigest()
    if found != digest:
        raise ArtifactError(
            f"{folder} already holds the bundle {found[:12]}; this one is {digest[:12]}. A version never changes: "
            "register a new version, "
            "or remove the folder if it was never released."
        )
    for name in files:
        _same(folder / name, _bytes(folder / name, MODEL_BYTES), whole["files"][name])
    return digest


def parameters(model: Any) -> str:
    """SHA-256 over everything that a fitted pipeline is made of: arrays and parameters, no addresses, no time of day."""
    return hashlib.sha256(_dumped(model)).hexdigest()


def manifest_of(folder: Path, digest: str) -> dict[str, Any]:
    """The manifest of a bundle, after its bytes have proved to be those that were written; the model is not opened.

    Raises:
        ArtifactError: it is missing or altered.
    """
    return _manifest(folder, digest)


def compiled(form: "Form | None", graph: bytes | None) -> dict[str, bytes]:
    """The files of a compiled model; none where there is no form."""
    if form is None:
        return {}
    return {FORM: form.packed()} | ({GRAPH: graph} if graph else {})


def served(folder: Path, digest: str) -> dict[str, bytes]:
    """The files that a server reads beside the model, verified: for who writes the same bundle under another number.

    Raises:
        ArtifactError: one is missing or altered.
    """
    found = {name: beside(folder, digest, name) for name in SERVED}
    return {name: content for name, content in found.items() if content is not None}


def beside(folder: Path, digest: str, name: str) -> bytes | None:
    """A file that lies beside the model, verified, or None where the bundle has none of that name.

    Raises:
        ArtifactError: it is missing or altered.
    """
    files = _manifest(folder, digest)["files"]
    if name not in files:
        return None
    content = _bytes(folder / name, MODEL_BYTES)
    _same(folder / name, content, files[name])
    return content


def altered(folder: Path, digest: str, but: Collection[str] = ()) -> str:
    """The name of the first file of a bundle whose bytes are not those that were written, or nothing; no model is opened.

    Args:
        folder: of the bundle.
        digest: that of its manifest.
        but: files that are not looked at.

    Raises:
        ArtifactError: a file is missing or cannot be read.
    """
    if hashlib.sha256(_bytes(folder / MANIFEST, MANIFEST_BYTES)).hexdigest() != digest:
        return MANIFEST
    files = _manifest(folder, digest)["files"]
    found = {name: hashlib.sha256(_bytes(folder / name, MODEL_BYTES)).hexdigest() for name in files if name not in but}
    return next((name for name in found if found[name] != files[name]), "")


def uncompiled(folder: Path, digest: str, reason: str) -> str:
    """Writes a candidate's bundle anew without its compiled form, so that scikit-learn serves it; gives the new digest.

    Args:
        folder: of the bundle, which nobody has released.
        digest: its present one.
        reason: why, for the manifest.
    """
    bundle = opened(folder, digest)
    gone = {"parity", "onnx", "files", "versions", "served by"}
    manifest = {name: value for name, value in bundle.manifest.items() if name not in gone} | {"because": reason}
    names = BESIDE - {FORM, GRAPH}
    rest = {name: content for name in names if (content := beside(folder, digest, name)) is not None}
    model = bundle.model()
    shutil.rmtree(folder)
    return write(folder, model, manifest, rest)


def fault(folder: Path, digest: str, seals: Seals | None = None) -> str:
    """What is wrong with a bundle on disk, a sentence with the next move, or nothing: every file of it is read, no model is opened."""
    try:
        bundle = opened(folder, digest, skew="accept", seals=seals)
        other = altered(folder, digest, but=bundle.files)
    except KeepfitError as error:
        return str(error)
    return (
        f"{folder / other} was altered or damaged: restore it from a copy, or release another version." if other else ""
    )


def stamps(folder: Path) -> tuple[object, ...]:
    """What the file system says of a bundle's files, cheaply: another answer where somebody has touched one."""
    return tuple(stamp(folder / name) for name in (MANIFEST, SEAL, MODEL, *sorted(BESIDE)))


def stamp(path: Path) -> tuple[int, ...] | None:
    """The same of one file, None where there is none; its last time nobody can set back, as one can that of writing."""
    try:
        met = path.stat()
    except OSError:
        return None
    return met.st_mtime_ns, met.st_size, met.st_ino, met.st_ctime_ns


def computing(folder: Path, digest: str) -> "Computing | None":
    """How the computed columns of a version are made, by the code that it was trained with; None where it reads none.

    The code is the project's own and runs with the rights of whoever loads the model, once its bytes have proved to be those
    that were released: whoever may write hooks.py or the journal decides what runs here.

    Raises:
        ArtifactError: it is missing or altered, or does not import here.
    """
    manifest = _manifest(folder, digest)
    return _computing(folder, manifest, beside(folder, digest, HOOKS) if manifest.get("computed") else None)


def _computing(folder: Path, manifest: dict[str, Any], source: bytes | None) -> "Computing | None":
    if not (types := manifest.get("computed")):
        return None
    if source is None:
        raise ArtifactError(f"{folder / MANIFEST} has computed columns without {HOOKS}. Register the model again.")
    from tasks.ml.computed import ComputedError, Computing

    made = Computing(source.decode(), types)
    try:
        made.ready()
    except ComputedError as error:
        raise ArtifactError(f"{folder}: {error} Install what it needs here, or release another version.") from error
    return made


def opened(folder: Path, digest: str, *, skew: Skew = "refuse", seals: Seals | None = None) -> Bundle:
    """A bundle, after every byte has proved to be the one that was written, by somebody who is trusted; nothing is constructed.

    Args:
        folder: where the bundle lies; files that the manifest does not name are not read.
        digest: SHA-256 of the manifest, from the journal.
        skew: `accept` takes a model that other versions of the libraries wrote, too, and logs it.
        seals: whose signatures count; by default those of this installation.

    Raises:
        ArtifactError: something is missing, altered, too big, unsigned, or written by other libraries.
    """
    text, seal = _text(folder, digest), _seal(folder)
    (seals or _here()).verify(folder, digest, seal)
    manifest = _parsed(folder, text)
    _same_libraries(folder, manifest["versions"], skew)
    files = {name: _bytes(folder / name, MODEL_BYTES) for name in (MODEL, *SERVED) if name in manifest["files"]}
    for name, content in files.items():
        _same(folder / name, content, manifest["files"][name])
    return Bundle(folder, manifest, {**files, MANIFEST: text, SEAL: seal})


def vouch(folder: Path, digest: str, bundle: Bundle, seals: Seals | None = None) -> None:
    """Whether somebody who is trusted now has signed a bundle that was opened before.

    Raises:
        KeepfitError: nobody has; as `Seals.verify`.
    """
    (seals or _here()).verify(folder, digest, bundle.files[SEAL])


def read(folder: Path, digest: str, *, skew: Skew = "refuse", seals: Seals | None = None) -> tuple[dict[str, Any], Any]:
    """The manifest and the model of a bundle, as `opened`.

    Raises:
        ArtifactError: as `opened`; or the model holds types that were not reviewed.
    """
    bundle = opened(folder, digest, skew=skew, seals=seals)
    return bundle.manifest, bundle.model()


def keep(bundle: Bundle, folder: Path) -> None:
    """Writes a copy of what a server reads of a bundle, from its bytes in memory; one that is there stays as it is."""
    if not folder.exists():
        _publish(folder, dict(bundle.files))


def clear(folder: Path) -> None:
    """Removes what killed writers left beside bundles; nobody writes any now."""
    for draft in folder.glob(".*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)


# -- the way in -------------------------------------------------------------------------------------------------------
def _here() -> Seals:
    return Seals.of(Settings())


def _seal(folder: Path) -> bytes:
    if not (folder / SEAL).exists() and folder.exists():
        raise ArtifactError(
            f"{folder} has no {SEAL}: nobody has signed the model. Train and register it again; an earlier version of keepfit signed none."
        )
    return _bytes(folder / SEAL, SEAL_BYTES)


def _manifest(folder: Path, digest: str) -> dict[str, Any]:
    return _parsed(folder, _text(folder, digest))


def _text(folder: Path, digest: str) -> bytes:
    text = _bytes(folder / MANIFEST, MANIFEST_BYTES)
    _same(folder / MANIFEST, text, digest)
    return text


def _parsed(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
        names, versions = set(manifest["files"]), manifest["versions"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{folder / MANIFEST} is no manifest of a bundle ({type(error).__name__}). Register the model again."
        ) from error
    if MODEL not in names or names - {MODEL} - BESIDE or not isinstance(versions, dict):
        raise ArtifactError(
            f"{folder / MANIFEST} names {len(names)} files; wanted {MODEL} and at most {', '.join(sorted(BESIDE))}. "
            "Register the model again."
        )
    return manifest


def _bytes(path: Path, most: int) -> bytes:
    """A file's content, read once: what was hashed is what is loaded, whatever happens to the file meanwhile."""
    try:
        met = path.stat()
        if not stat.S_ISREG(met.st_mode) or met.st_size > most:
            raise ArtifactError(
                f"{path} has {met.st_size:,} bytes; wanted a plain file of at most {most:,}. Restore it or release "
                "another version."
            )
        with path.open("rb") as file:
            content = file.read(met.st_size + 1)  # as many bytes are set aside at once
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}. Restore the folder from a copy or release another version."
        ) from error
    if len(content) > met.st_size:
        raise ArtifactError(f"{path} grew while it was read. Restore it or release another version.")
    return content


def _same(path: Path, content: bytes, digest: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ArtifactError(
            f"{path} has the SHA-256 {found[:12]}…; wanted {str(digest)[:12]}…. The file was altered or damaged: "
            "restore it from a copy, or release another version."
        )


def skewed(versions: dict[str, str]) -> str:
    """The libraries whose first two numbers are others here than where a model was written, or nothing.

    >>> skewed({name: version(name) for name in PINNED})
    ''
    """
    pinned = (*PINNED, RUNTIME) if RUNTIME in versions else PINNED
    pairs = [(name, str(versions.get(name, "none")), _installed(name)) for name in pinned]
    return ", ".join(
        f"{name} {wrote}; this process has {reads}"
        for name, wrote, reads in pairs
        if wrote.split(".")[:2] != reads.split(".")[:2]
    )


@functools.cache
def _installed(name: str) -> str:
    """The version of a library; what a process has imported does not change, and to look it up takes longer than most of a load."""
    return version(name)


def _same_libraries(folder: Path, versions: dict[str, str], skew: Skew) -> None:
    if not (others := skewed(versions)):
        return
    if skew == "refuse":
        raise ArtifactError(
            f"{folder} was written by {others}. Train again, install what wrote it, or accept that answers may differ: "
            "KEEPFIT_LIBRARY_SKEW=accept, which goes on record with the release."
        )
    LOG.warning("library skew accepted: %s was written by %s", folder, others)


def _refuse_oversized(files: Mapping[str, bytes]) -> None:
    largest = max(files, key=lambda name: len(files[name]))
    if len(files[largest]) > MODEL_BYTES:
        raise OversizedError(
            f"too large: the model's {largest} has {len(files[largest]) / MIB:,.0f} MiB; wanted at most {MODEL_BYTES / MIB:,.0f}. "
            "Train a smaller one"
        )


def _refuse_bomb(content: bytes, path: Path) -> None:
    """Refuses an archive that would grow beyond its own size when it is read (faults: R-08)."""
    try:
        reason = _swollen(content)
    except (
        ValueError,
        KeyError,
        OSError,
        struct.error,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise ArtifactError(
            f"{path} is no plain archive ({type(error).__name__}). Train and register the model again."
        ) from error
    if reason is not None:
        raise ArtifactError(f"{path} {reason}; no model is written so. Train and register the model again.")


def _swollen(content: bytes) -> str | None:
    end = len(content) - 22
    if end < 0 or content[end : end + 4] != b"PK\5\6" or content[max(end - 20, 0) : max(end - 16, 0)] == b"PK\6\7":
        return "does not end as a plain archive"
    (listing,) = struct.unpack_from("<I", content, end + 12)
    if listing > DIRECTORY_BYTES:
        return f"lists its members in {listing:,} bytes"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS or len({member.filename for member in members}) != len(members):
            return f"has {len(members):,} members, too many or of one name"
        if not all(
            MEMBER.fullmatch(member.filename) and member.compress_type == zipfile.ZIP_STORED for member in members
        ):
            return "has members that are compressed or have strange names"
        if sum(member.file_size for member in members) > len(content):
            return "has members that are bigger than itself"
        if not all(_honest(archive, member) for member in members if member.filename.endswith(".npy")):
            return "holds an array whose header does not fit its size"
    return None


def _honest(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether an array's header claims as many bytes as there are."""
    from numpy.lib import format as npy

    with archive.open(member) as file:
        headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = headers[npy.read_magic(file)](file)
        return not dtype.hasobject and math.prod(shape) * dtype.itemsize == member.file_size - file.tell()


def _refuse_unreviewed(content: bytes, folder: Path) -> None:
    import skops.io

    try:
        strange = set(skops.io.get_untrusted_types(data=content)) - set(REVIEWED)
    except Exception as error:  # the schema comes from outside, and skops raises whatever its shape provokes
        raise ArtifactError(
            f"{folder / MODEL} has no readable schema ({type(error).__name__}). Train and register the model again."
        ) from error
    if strange:
        raise ArtifactError(
            f"{folder / MODEL} holds types that nobody has reviewed: {', '.join(sorted(strange))}. Use reviewed "
            "estimators, "
            "or look at what these can do and add them to REVIEWED in tasks/stores/bundles.py."
        )


def _construct(content: bytes, folder: Path) -> Any:
    import skops.io

    try:
        model = skops.io.loads(content, trusted=REVIEWED)
        _bounded(model)
    except Exception as error:  # as above: the content decides what is raised
        raise ArtifactError(
            f"{folder / MODEL} does not load ({type(error).__name__}: {error}). Train and register the model again."
        ) from error
    return model


def _bounded(model: Any) -> None:
    """Checks what compiled code follows blindly: every tree's links lead forward and its features exist."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.tree import BaseDecisionTree

    for part in _parts(model):
        if isinstance(part, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
            for tree in (tree for row in part._predictors for tree in row):
                _check_tree(tree, part.n_features_in_)
        elif isinstance(part, BaseDecisionTree) and hasattr(
            part, "tree_"
        ):  # a forest keeps an unfitted one as a pattern
            _check_nodes(part.tree_, part.n_features_in_)


def _check_nodes(tree: Any, features: int) -> None:
    import numpy as np

    left, right = tree.children_left, tree.children_right
    size = tree.node_count
    leaf = left == -1
    at = np.flatnonzero(~leaf)
    forward = all(((side[at] > at) & (side[at] < size)).all() for side in (left, right))
    known = ((tree.feature[at] >= 0) & (tree.feature[at] < features)).all()
    if not (size and tree.n_features == features and (leaf == (right == -1)).all() and forward and known):
        raise ValueError("a tree points outside of itself")


def _check_tree(tree: Any, features: int) -> None:
    import numpy as np
    from sklearn.ensemble._hist_gradient_boosting.predictor import PREDICTOR_RECORD_DTYPE

    nodes, size = tree.nodes, len(tree.nodes)
    if nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or size == 0:
        raise ValueError("a tree has no nodes or nodes of another kind")
    at = np.flatnonzero(nodes["is_leaf"] == 0)
    inner = nodes[at]
    forward = all(((inner[side] > at) & (inner[side] < size)).all() for side in ("left", "right"))
    known = ((inner["feature_idx"] >= 0) & (inner["feature_idx"] < features)).all()
    sets = (inner["bitset_idx"][inner["is_categorical"] != 0] < len(tree.raw_left_cat_bitsets)).all()
    if not (forward and known and sets):
        raise ValueError("a tree points outside of itself")


def _parts(thing: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """A model and everything that it is made of, each once."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield thing
    if isinstance(thing, type):
        return
    inside = (
        thing
        if isinstance(thing, list | tuple | set)
        else [*thing.values()]
        if isinstance(thing, dict)
        else getattr(thing, "__dict__", {}).values()
    )
    for part in inside:
        yield from _parts(part, seen)


# -- the way out ------------------------------------------------------------------------------------------------------
def _dumped(model: Any) -> bytes:
    import skops.io

    return _canonical(skops.io.dumps(model))


def _canonical(dumped: bytes) -> bytes:
    """The same skops file without memory addresses, random names and the time of day: equal models, equal bytes."""
    ids: dict[int, int] = {}
    names: dict[str, str] = {}

    def renumber(node: dict[str, Any]) -> dict[str, Any]:
        if isinstance(node.get("__id__"), int):
            node["__id__"] = ids.setdefault(node["__id__"], len(ids) + 1)
        if "__loader__" in node and isinstance(node.get("file"), str):
            node["file"] = names.setdefault(node["file"], f"{len(names) + 1}{Path(node['file']).suffix}")
        return node

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(dumped)) as old, zipfile.ZipFile(buffer, "w") as new:
        schema = json.loads(old.read("schema.json"), object_hook=renumber)
        for before, after in names.items():
            new.writestr(zipfile.ZipInfo(after), old.read(before))
        new.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema, separators=(",", ":")))
    return buffer.getvalue()


def _publish(folder: Path, files: dict[str, bytes]) -> None:
    """Writes beside the place and renames: a reader sees the whole folder or none; of two writers the first wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.tmp"
    draft.mkdir()
    try:
        for name, content in files.items():
            with (draft / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        _sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Makes names durable: a file's own fsync does not cover its entry in the folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
