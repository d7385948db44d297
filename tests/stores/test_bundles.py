"""Bundles: what was written is what is read, and nothing else is."""

import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from tasks.config.errors import ArtifactError
from tasks.config.settings import Settings
from tasks.ml import calibrate
from tasks.ml.compiled import parity
from tasks.ml.recipe import Recipe
from tasks.stores import bundles
from tasks.stores.seals import SEAL, Seals
from tests.ml.test_kinds import MADE, PAIRS, taught

MANIFEST = {"project": "flights", "version": 1, "threshold": 0.5}
ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False),
    "sparse": OneHotEncoder(handle_unknown="ignore"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
    "imputed": make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
}
NUMBERS = {
    "scaled": make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
    "raw": "passthrough",
}
LEARNERS = {
    "logistic": LogisticRegression(),
    "boosting": HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5, random_state=0, early_stopping=False),
}


def rows(count=120):
    """A number and a text, both with gaps."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.normal(size=count), "sex": pd.Series(rng.choice(["f", "m", None], count), dtype="str")}
    )
    if count > 50:
        frame.loc[::9, "age"] = np.nan
    return frame


def fitted(numbers="scaled", encoder="one-hot", learner="logistic", labels=(False, True)):
    """A fitted pipeline of the named parts."""
    frame = rows()
    prepare = ColumnTransformer([("n", NUMBERS[numbers], ["age"]), ("t", ENCODERS[encoder], ["sex"])])
    pipeline = Pipeline([("prepare", prepare), ("model", LEARNERS[learner])])
    return pipeline.fit(frame, np.where(frame["age"].fillna(0) > 0, *reversed(labels)))


@pytest.fixture(scope="module")
def boosting():
    """A fitted boosting pipeline; whoever bends it straightens it again."""
    return fitted("raw", "ordinal", "boosting")


@pytest.fixture
def bundle(tmp_path, boosting):
    """The folder of a written bundle, and its digest."""
    folder = tmp_path / "bundles" / "flights" / "1"
    return folder, bundles.write(folder, boosting, MANIFEST)


def resealed(folder, content, **changes):
    """The digest of a bundle whose model bytes were replaced by somebody who may also write the manifest, and sign it."""
    (folder / bundles.MODEL).write_bytes(content)
    manifest = (
        json.loads((folder / bundles.MANIFEST).read_bytes())
        | {"files": {bundles.MODEL: hashlib.sha256(content).hexdigest()}}
        | changes
    )
    text = json.dumps(manifest).encode()
    (folder / bundles.MANIFEST).write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    (folder / SEAL).write_bytes(Seals.of(Settings()).sign(digest))
    return digest


@pytest.mark.parametrize("labels", [(False, True), (0, 1), ("no", "yes")], ids=["bool", "int", "text"])
@pytest.mark.parametrize(
    ("numbers", "encoder", "learner"),
    [
        ("scaled", "one-hot", "logistic"),
        ("scaled", "sparse", "logistic"),
        ("scaled", "imputed", "logistic"),
        ("raw", "ordinal", "boosting"),
    ],
)
def test_every_offered_pipeline_comes_back_with_the_same_answers(tmp_path, numbers, encoder, learner, labels):
    """A pipeline of every family is written, read, and gives bit-equal probabilities."""
    model = fitted(numbers, encoder, learner, labels)
    digest = bundles.write(tmp_path / "1", model, MANIFEST)
    manifest, again = bundles.read(tmp_path / "1", digest)
    assert np.array_equal(again.predict_proba(rows()), model.predict_proba(rows()))
    assert manifest.items() >= MANIFEST.items()
    assert set(manifest["versions"]) == {"scikit-learn", "skops", "numpy"}


def test_a_model_that_is_judged_again_keeps_the_bundle_of_the_first_time(tmp_path):
    """The same model under another judgement is the same version: its manifest goes on saying how it was judged first."""
    model = fitted("scaled", "one-hot", "logistic", (0, 1))
    first, again = (bundles.write(tmp_path / "1", model, MANIFEST, first={"gates_sha256": said}) for said in "ab")
    assert first == again
    assert bundles.manifest_of(tmp_path / "1", first)["gates_sha256"] == "a"


def test_the_reviewed_types_are_those_that_fitted_pipelines_hold():
    """The list names what pipelines need beyond skops' own trust, and no more."""
    fitted_ones = []
    for kind, family in PAIRS:
        model, asked, truth = taught(MADE[kind], Recipe.usual(family))
        fitted_ones.append(model)
        if MADE[kind].has_chances and family == "logistic":
            method = "sigmoid" if kind == "binary" else "temperature"
            fitted_ones.append(calibrate._corrected(MADE[kind], model, asked, truth, method))
    dumps = [skops.io.dumps(model) for model in fitted_ones]
    assert {name for dump in dumps for name in skops.io.get_untrusted_types(data=dump)} == set(bundles.REVIEWED)


def test_the_same_training_gives_the_same_bytes(tmp_path):
    """Two fits of the same rows have one digest, and writing a bundle twice changes nothing."""
    first = bundles.write(tmp_path / "1", fitted("raw", "ordinal", "boosting"), MANIFEST)
    assert bundles.write(tmp_path / "2", fitted("raw", "ordinal", "boosting"), MANIFEST) == first
    before = (tmp_path / "1" / bundles.MODEL).stat().st_ino
    assert bundles.write(tmp_path / "1", fitted("raw", "ordinal", "boosting"), MANIFEST) == first
    assert (tmp_path / "1" / bundles.MODEL).stat().st_ino == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_another_bundle_never_replaces_a_version(tmp_path, bundle):
    """A folder that holds another bundle is refused and left alone."""
    folder, digest = bundle
    with pytest.raises(ArtifactError, match="A version never changes"):
        bundles.write(folder, fitted(), MANIFEST)
    assert bundles.read(folder, digest)[0]["project"] == "flights"


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, boosting):
    """When the disk fails half-way, neither a version nor a draft remains."""

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        bundles.write(tmp_path / "flights" / "1", boosting, MANIFEST)
    assert list((tmp_path / "flights").iterdir()) == []


def call(mark):
    """A pickle that makes a folder when it is loaded."""
    return f"cos\nmkdir\n(V{mark}\ntR.".encode()


def test_r_01_a_pickle_is_never_executed(tmp_path, bundle):
    """A pickle under the model's name is refused without being run, though its digest is the released one (R-01)."""
    folder, _ = bundle
    mark = tmp_path / "executed"
    with pytest.raises(ArtifactError, match="plain archive"):
        bundles.read(folder, resealed(folder, call(mark)))
    assert not mark.exists()
    pickle.loads(call(mark))  # noqa: S301 – shows that it would have worked
    assert mark.exists()


def archive(schema, members=(), compression=zipfile.ZIP_STORED):
    """A skops file with a schema and members of our choice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
        file.writestr("schema.json", json.dumps(schema))
    return buffer.getvalue()


def test_r_01_a_model_that_trusts_itself_is_not_trusted(tmp_path, bundle):
    """Types that were not reviewed stay out, whatever file and manifest say about trusting them (R-01)."""
    folder, _ = bundle
    mark = tmp_path / "executed"
    schema = {
        "__class__": "mkdir",
        "__module__": "os",
        "__loader__": "TypeNode",
        "protocol": 2,
        "trusted": ["os.mkdir", "posix.mkdir"],
    }
    digest = resealed(folder, archive(schema), trusted=["os.mkdir"], REVIEWED=["os.mkdir"])
    with pytest.raises(ArtifactError, match=r"nobody has reviewed: os\.mkdir"):
        bundles.read(folder, digest)
    strange = skops.io.dumps(make_pipeline(FunctionTransformer(os.path.basename), fitted()))
    with pytest.raises(ArtifactError, match=r"nobody has reviewed: .*basename"):
        bundles.read(folder, resealed(folder, bundles._canonical(strange), trusted=["posixpath.basename"]))
    with pytest.raises(ArtifactError, match="nobody has reviewed"):
        bundles.write(tmp_path / "2", make_pipeline(FunctionTransformer(os.path.basename), fitted()), MANIFEST)
    assert not mark.exists()
    assert not (tmp_path / "2").exists()


def test_a_tree_that_points_outside_of_itself_is_refused(bundle, boosting):
    """A crafted tree, whose indices compiled code would follow into foreign memory or in a circle, does not load."""
    folder, _ = bundle
    nodes = boosting[-1]._predictors[0][0].nodes
    good = nodes.copy()
    for field, value in {"left": 10**6, "right": 0, "feature_idx": 999}.items():
        nodes[field][0] = value
        with pytest.raises(ArtifactError, match="points outside"):
            bundles.read(folder, resealed(folder, bundles._canonical(skops.io.dumps(boosting))))
        nodes[:] = good


def array(shape):
    """Eight bytes under a header that claims a shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)


BOMBS = {
    "compressed": archive({}, [("1.npy", bytes(1 << 22))], zipfile.ZIP_DEFLATED),
    "too many members": archive({}, [(f"{n}.npy", b"") for n in range(bundles.MEMBERS + 1)]),
    "a 5 GB array of 8 bytes": archive({}, [("1.npy", array((625_000_000,)))]),
    "a path": archive({}, [("../../evil.npy", b"")]),
    "an archive in an archive": archive({}, [("1.npz", archive({}))]),
    "not an archive": b"no archive at all, only text",
    "empty": b"",
    "deep": archive({}).replace(b"{}", b"[]"),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_r_08_an_archive_that_would_swell_is_refused(bundle, content):
    """Bombs are refused by their headers, before anything is unpacked (R-08)."""
    folder, _ = bundle
    with pytest.raises(ArtifactError, match="again"):
        bundles.read(folder, resealed(folder, content))


def test_r_08_a_file_beyond_the_limit_is_not_read(bundle, monkeypatch):
    """A model bigger than the limit, or that is no plain file, is refused by its size alone (R-08)."""
    folder, digest = bundle
    with (folder / bundles.MODEL).open("r+b") as file:
        file.truncate(bundles.MODEL_BYTES + 1)
    with pytest.raises(ArtifactError, match="at most"):
        bundles.read(folder, digest)
    (folder / bundles.MODEL).unlink()
    os.mkfifo(folder / bundles.MODEL)
    with pytest.raises(ArtifactError, match="plain file"):
        bundles.read(folder, digest)


def test_r_05_a_missing_bundle_says_what_to_do(bundle):
    """A deleted bundle is an error that names the next move (R-05)."""
    folder, digest = bundle
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="Restore the folder from a copy or release another version"):
        bundles.read(folder, digest)


def test_r_07_files_beside_the_model_are_not_read(bundle):
    """What lies beside the model plays no part; a manifest that names more files is refused (R-07)."""
    folder, digest = bundle
    (folder / "__init__.py").write_text("raise SystemExit")
    (folder / "model.pkl").write_bytes(b"\x80")
    bundles.read(folder, digest)
    content = (folder / bundles.MODEL).read_bytes()
    files = {bundles.MODEL: hashlib.sha256(content).hexdigest(), "../other": ""}
    with pytest.raises(ArtifactError, match="names 2 files"):
        bundles.read(folder, resealed(folder, content, files=files))


def other_libraries(folder, **versions):
    """The digest of the same bundle as if other libraries had written it."""
    content = (folder / bundles.MODEL).read_bytes()
    here = json.loads((folder / bundles.MANIFEST).read_bytes())["versions"]
    return resealed(folder, content, versions=here | {name.replace("_", "-"): at for name, at in versions.items()})


@pytest.mark.parametrize("library", [*bundles.PINNED, bundles.RUNTIME])
def test_r_09_a_model_of_other_libraries_is_refused_by_name(bundle, library):
    """Each pinned library counts: another minor version than the one that wrote is named, with the next moves (R-09)."""
    folder, _ = bundle
    with pytest.raises(ArtifactError, match=rf"written by {library} 0\.9\.3; this process has .*LIBRARY_SKEW=accept"):
        bundles.read(folder, other_libraries(folder, **{library: "0.9.3"}))


def test_r_09_a_patch_release_is_the_same_library(bundle):
    """The third number does not count: a fix does not keep a model from being read (R-09)."""
    folder, _ = bundle
    patched = ".".join([*sklearn.__version__.split(".")[:2], "999"])
    bundles.read(folder, other_libraries(folder, **{"scikit-learn": patched}))


def test_r_09_accepting_other_libraries_goes_on_record(bundle, caplog):
    """Who says so reads the model all the same; the log has which libraries were others (R-09)."""
    folder, _ = bundle
    digest = other_libraries(folder, numpy="1.2.3")
    with caplog.at_level("WARNING", logger="keepfit.bundles"):
        _, model = bundles.read(folder, digest, skew="accept")
    assert len(model.predict_proba(rows())) == len(rows())
    assert f"written by numpy 1.2.3; this process has {np.__version__}" in caplog.text


def test_what_lies_beside_is_verified(tmp_path, boosting):
    """A footprint beside the model reads back as it was written, and not at all when a byte is another one."""
    folder = tmp_path / "1"
    digest = bundles.write(folder, boosting, MANIFEST, {"footprint.json": b"{}"})
    assert bundles.beside(folder, digest, "footprint.json") == b"{}"
    assert bundles.beside(folder, digest, "rows.bin") is None
    assert bundles.read(folder, digest)[0]["project"] == "flights"
    (folder / "footprint.json").write_bytes(b"[]")
    with pytest.raises(ArtifactError, match="altered or damaged"):
        bundles.beside(folder, digest, "footprint.json")


def test_code_beside_the_model_is_part_of_the_bundle(tmp_path, boosting):
    """The manifest names its SHA-256, so that other code is another digest; what was not asked to lie there is none."""
    types = {"twice": "float"}
    code = {name: f"def features(rows):\n    return rows * {name}\n".encode() for name in (2, 3)}
    digests = {
        name: bundles.write(tmp_path / str(name), boosting, MANIFEST | {"computed": types}, {bundles.HOOKS: text})
        for name, text in code.items()
    }
    assert digests[2] != digests[3]
    for name, digest in digests.items():
        manifest, _ = bundles.read(tmp_path / str(name), digest)
        assert manifest["files"][bundles.HOOKS] == hashlib.sha256(code[name]).hexdigest()
        assert bundles.beside(tmp_path / str(name), digest, bundles.HOOKS) == code[name]
        made = bundles.computing(tmp_path / str(name), digest)
        assert made is not None
        assert (made.source.encode(), made.types) == (code[name], types)
    digest = bundles.write(tmp_path / "plain", boosting, MANIFEST)
    (tmp_path / "plain" / bundles.HOOKS).write_bytes(code[2])
    assert bundles.computing(tmp_path / "plain", digest) is None


@pytest.fixture
def compiled(tmp_path, boosting):
    """The folder of a bundle with a compiled form, its digest, and the form."""
    made = parity.compiled(MADE["binary"], labelled(), rows(), {"threshold": 0.5})
    digest = bundles.write(
        tmp_path / "1", labelled(), MANIFEST | made.described(), bundles.compiled(made.form, made.graph)
    )
    return tmp_path / "1", digest, made.form


@functools.cache
def labelled():
    """A boosting pipeline that says no and yes."""
    return fitted("raw", "ordinal", "boosting", ("no", "yes"))


def test_a_compiled_model_comes_back_as_it_was_written(compiled):
    """The manifest names form and graph, the runtime that ran it, who serves, and the inputs of the graph; equal forms, equal bytes."""
    folder, digest, form = compiled
    bundle = bundles.opened(folder, digest)
    assert bundle.manifest["served by"] == "its compiled form"
    assert {bundles.FORM, bundles.GRAPH} <= set(bundle.manifest["files"])
    assert set(bundle.manifest["versions"]) == {"scikit-learn", "skops", "numpy", "onnxruntime"}
    assert bundle.manifest["onnx"]["input"]["columns"] == ["n[0]", "t[0]"]
    assert bundle.manifest["parity"]["rows"] == len(rows())
    found = bundle.form()
    assert found is not None
    assert found.packed() == form.packed() == bundle.files[bundles.FORM]
    assert bundle.model().predict_proba(rows()).tolist() == labelled().predict_proba(rows()).tolist()


def test_a_bundle_without_a_form_says_who_serves_and_why(bundle):
    """What was not compiled is served by scikit-learn, and the manifest says so with the reason."""
    folder, digest = bundle
    manifest = bundles.opened(folder, digest).manifest
    assert (manifest["served by"], manifest["because"]) == ("scikit-learn", "it was not compiled")
    assert bundles.opened(folder, digest).form() is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a bundle with every file that a server reads, its digest, and another version's folder with other bytes in each."""
    home, made = (
        tmp_path_factory.mktemp("whole"),
        parity.compiled(MADE["binary"], labelled(), rows(), {"threshold": 0.5}),
    )
    other = fitted("scaled", "one-hot", "logistic", ("no", "yes"))
    more = parity.compiled(MADE["binary"], other, rows(), {"threshold": 0.5})
    digests = [
        bundles.write(
            home / str(version), model, MANIFEST | {"version": version} | parts.described(),
            bundles.compiled(parts.form, parts.graph) | {bundles.HOOKS: f"VERSION = {version}\n".encode()},
        )
        for version, model, parts in ((1, labelled(), made), (2, other, more))
    ]  # fmt: skip
    return home / "1", digests[0], home / "2"


@pytest.mark.parametrize("name", [bundles.MODEL, *bundles.SERVED, bundles.MANIFEST, SEAL])
def test_r_02_a_hundred_mutations_of_each_file_that_is_served_are_refused(whole, name):
    """Bits flipped, bytes cut off or added, the file of another version, another file, none: read again all are refused, then the good one is taken (R-02)."""
    folder, digest, other = whole
    good, rng = (folder / name).read_bytes(), np.random.default_rng(2)
    swapped = [(other / name).read_bytes(), *((folder / each).read_bytes() for each in (bundles.MODEL, bundles.MANIFEST, bundles.HOOKS, SEAL) if each != name)]  # fmt: skip
    bad = [*swapped, b"", good + b"x", good + bytes(8)]
    bad += [good[: int(length)] for length in rng.integers(0, len(good), 30)]
    while len(bad) < 100:
        flipped = bytearray(good)
        flipped[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        if name != SEAL or flipped.lower() != good.lower():  # hex in capitals is the same signature
            bad.append(bytes(flipped))
    for content in bad:
        (folder / name).write_bytes(content)
        with pytest.raises(ArtifactError):
            bundles.opened(folder, digest)
    assert (str(folder) if name == SEAL else name) in bundles.fault(folder, digest)
    (folder / name).write_bytes(good)
    assert bundles.fault(folder, digest) == ""


def test_r_02_a_file_that_was_altered_in_place_has_another_stamp_though_its_time_was_set_back(bundle):
    """Of the same size, in the same inode, with the time of writing that it had: it is verified anew (R-02)."""
    folder, _ = bundle
    before, path = bundles.stamps(folder), folder / bundles.MODEL
    met = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(met.st_atime_ns, met.st_mtime_ns))
    assert path.stat().st_mtime_ns == met.st_mtime_ns
    assert bundles.stamps(folder) != before


def reformed(folder, content):
    """The digest of a bundle whose form was replaced by somebody who may also sign."""
    files = json.loads((folder / bundles.MANIFEST).read_bytes())["files"]
    (folder / bundles.FORM).write_bytes(content)
    files |= {bundles.FORM: hashlib.sha256(content).hexdigest()}
    return resealed(folder, (folder / bundles.MODEL).read_bytes(), files=files)


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_r_08_a_form_that_would_swell_is_refused(compiled, content):
    """The archive of a compiled model is looked at before anything of it is unpacked, too (R-08)."""
    folder, _, _ = compiled
    bundle = bundles.opened(folder, reformed(folder, content))
    with pytest.raises(ArtifactError, match="again"):
        bundle.form()


def test_r_01_a_form_cannot_hold_a_pickle(tmp_path, compiled):
    """An array of objects, which numpy would unpickle, and one that the schema only claims, are refused without being run (R-01)."""
    folder, _, form = compiled
    mark = tmp_path / "executed"
    with zipfile.ZipFile(io.BytesIO(form.packed())) as archived:
        members = {name: archived.read(name) for name in archived.namelist()}
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    objects = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + call(mark)
    for member in (objects, None):
        schema = json.loads(members["schema.json"])
        content = archive(schema, [("1.npy", member)] if member else [])
        with pytest.raises(ArtifactError, match="again"):
            bundles.opened(folder, reformed(folder, content)).form()
    assert not mark.exists()


def test_r_05_what_a_server_needs_is_kept_from_memory(tmp_path, compiled):
    """A copy is written of the bytes that were verified, though the folder is gone meanwhile, and proves to be the released one (R-05)."""
    folder, digest, form = compiled
    bundle = bundles.opened(folder, digest)
    shutil.rmtree(folder)
    bundles.keep(bundle, tmp_path / "copy")
    bundles.keep(bundle, tmp_path / "copy")
    found = bundles.opened(tmp_path / "copy", digest).form()
    assert found is not None
    assert found.packed() == form.packed()
    assert "cannot be read" in bundles.fault(folder, digest)


def test_a_candidate_whose_form_does_not_hold_is_served_by_scikit_learn(compiled):
    """The bundle is written anew without form and graph, with the reason, and everything else as it was."""
    folder, digest, _ = compiled
    again = bundles.uncompiled(folder, digest, "it answers 3 of 120 rows otherwise")
    assert again != digest
    manifest = bundles.opened(folder, again).manifest
    assert (manifest["served by"], manifest["because"]) == ("scikit-learn", "it answers 3 of 120 rows otherwise")
    assert not {"onnx", "parity"} & manifest.keys()
    assert sorted(path.name for path in folder.iterdir()) == [bundles.MANIFEST, SEAL, bundles.MODEL]
