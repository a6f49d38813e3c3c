import { Classifier } from "./classify.js";
import { Problem } from "./problem.js";
import { readStrip } from "./strips.js";

// A worker is sent {kernels, model, scene, picture, strip} once, then the first and last row of strips, one after the other. `picture`
// are the bands that are shown. It answers each with {rows, ids, confidence, picture}, or {problem} once and for all.
let job = null, classifier = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.model) {
      job = data;
      classifier = new Classifier(new WebAssembly.Module(data.kernels), data.model, data.strip);
      self.postMessage({ ready: true });
      return;
    }
    const { scene, model, picture } = job;
    const { rows } = data, { reach } = classifier;
    const outer = { start: Math.max(0, rows.start - reach), stop: Math.min(scene.rows, rows.stop + reach) };
    const bands = model.card.bands.used.map((number) => number - 1);
    const values = await readStrip(scene, bands, outer);
    const inner = { start: rows.start - outer.start, stop: rows.stop - outer.start };
    const height = outer.stop - outer.start;
    const made = classifier.classify(values, height, scene.columns, inner);
    const seen = picture.map((place) => {
      const start = (place * height + inner.start) * scene.columns;
      return values.slice(start, start + (rows.stop - rows.start) * scene.columns);
    });
    self.postMessage({ rows, ...made, picture: seen }, [made.ids.buffer, made.confidence.buffer, ...seen.map((each) => each.buffer)]);
  } catch (error) {
    const message = error instanceof Problem ? error.message : `This page failed: ${error.message}. Please report it.`;
    self.postMessage({ problem: message });
  }
};
