"""Compiled models: what a fitted pipeline computes, as plain data, answered without pandas and without scikit-learn.

`translate.py` makes a `Form` of a pipeline, `parity.py` holds it against the pipeline row by row, `form.py` answers with it;
`graph.py` writes the trees as an ONNX graph, which other languages read, too. Start with `form.py`.

Measured here (HistGradientBoosting of 200 trees, 22 columns, one thread, CPU time): scikit-learn 1,278 µs a row, treelite's GTIL 44 µs,
ONNX Runtime 6.7 µs; of 1,000 rows 8.5, 15.7 and 3.6 ms. So trees run in ONNX Runtime, in a graph that is built here node by
node: `TreeEnsemble` of ai.onnx.ml 5 in float64, with the baseline as a first tree, adds up the same numbers in the same order as
scikit-learn and gives its answers bit by bit. skl2onnx is not used: its trees are float32, and it cannot convert
HistGradientBoosting on these pins. treelite is not used: it is slower, and a graph must be written for other languages anyhow.
Linear models, mixtures and recommenders are a few lines of numpy, quicker than a call into a runtime. What has no translation
(nearest neighbours; splits on native categories, which no pipeline of ours has) stays with scikit-learn, and says so.
"""
