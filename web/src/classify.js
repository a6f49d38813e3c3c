import { companionOf, mixed, packed } from "./companions.js";
import { Linear, Matrix, Memory } from "./matrices.js";
import { Network } from "./network.js";
import { NEAR, partsOf } from "./parts.js";
import { Image, PositionMerging, SharedMerging, gatherMeans } from "./patches.js";

const BATCH = 64; // pixels that the network takes at a time
const BLOCK = 64; // columns that are computed at a time
const NETWORK = 0.25; // how much a network counts beside label propagation's sharp view (models/committee.py)

// Tells the class of each pixel of rows of a scene.
export class Classifier {
  // module: the compiled kernels; rows: of a strip at most, without what patches reach beyond it.
  constructor(module, model, rows) {
    const { card, tensors } = model;
    const memory = new Memory(module);
    const L = card.bands.used.length, K = card.classes.length, patch = card.model.patch, reach = (patch - 1) / 2;
    const { network, companion } = partsOf(card, model.name);
    Object.assign(this, { L, K, patch, reach, ids: card.classes.map((entry) => entry.id) });
    const tensor = (name) => tensors[`transform.${name}`].values;
    this.mean = tensor("mean");
    this.inverseSd = tensor("inverse_sd");
    const matrix = tensor("matrix"), offset = tensor("offset");
    this.transform = new Linear(memory, L, L, (row, column) => matrix[row * L + column], (column) => offset[column]);
    const pixels = (rows + 2 * reach) * (BLOCK + 2 * reach);
    this.image = new Image(memory, L, pixels, patch);
    this.standard = new Matrix(memory, pixels, L);
    this.sums = patch > 1 ? new Matrix(memory, pixels, L) : null;
    this.nearSums = patch > NEAR && companion?.kind === "label propagation" ? new Matrix(memory, pixels, L) : null;
    [this.centres, this.means, this.nears, this.spectra, this.view] = [1, 2, 3, 4, 5].map(() => new Matrix(memory, BATCH, L));
    this.network = network && new Network(memory, network, tensors, K, BATCH);
    this.merging = null;
    if (network) {
      const inside = (name) => tensors[`${network.prefix}merging.${name}`];
      if (network.gate === "position") this.merging = new PositionMerging(memory, inside, this.image);
      if (network.gate === "shared") this.merging = new SharedMerging(memory, inside, this.image, BATCH);
    }
    this.companion = companion && companionOf(memory, companion, tensors, L, K, patch, BATCH);
    this.logits = new Float32Array(BATCH * K);
  }

  // values (L, height, columns) hold the rows with what patches reach beyond them; `inner` are the rows in there to classify.
  // Returns class ids, 0 nodata, and the probability of the class, NaN nodata.
  classify(values, height, columns, inner) {
    const size = (inner.stop - inner.start) * columns;
    const ids = new Uint16Array(size), confidence = new Float32Array(size).fill(NaN);
    for (let left = 0; left < columns; left += BLOCK) {
      const right = Math.min(left + BLOCK, columns);
      const from = Math.max(0, left - this.reach), to = Math.min(columns, right + this.reach);
      this.load(values, height, columns, from, to);
      const asked = [];
      for (let row = inner.start; row < inner.stop; row++) {
        for (let column = left; column < right; column++) {
          const pixel = row * this.image.width + column - from;
          if (this.image.valid[pixel]) asked.push(pixel);
        }
      }
      if (!asked.length) continue;
      this.prepare(asked);
      for (let first = 0; first < asked.length; first += BATCH) {
        const pixels = asked.slice(first, first + BATCH);
        this.gather(pixels);
        const logits = this.decide(pixels.length);
        pixels.forEach((pixel, place) => {
          const row = Math.floor(pixel / this.image.width) - inner.start, column = (pixel % this.image.width) + from;
          const [best, probability] = surest(logits, place * this.K, this.K);
          ids[row * columns + column] = this.ids[best];
          confidence[row * columns + column] = probability;
        });
      }
    }
    return { ids, confidence };
  }

  // Transform the columns of a block; pixels that miss a value become zeros.
  load(values, height, columns, from, to) {
    const { image, standard, L } = this;
    const width = to - from, plane = height * columns;
    Object.assign(image, { height, width });
    image.valid.fill(1, 0, height * width);
    const { values: out, stride } = standard;
    for (let band = 0; band < L; band++) {
      const mean = this.mean[band], inverseSd = this.inverseSd[band];
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          const value = values[band * plane + row * columns + from + column], pixel = row * width + column;
          if (value - value === 0) out[pixel * stride + band] = Math.fround(value - mean) * inverseSd;
          else image.valid[pixel] = 0; // NaN or infinity
        }
      }
    }
    this.transform.apply(standard, height * width, image.spectra);
    for (let pixel = 0; pixel < height * width; pixel++) {
      if (!image.valid[pixel]) image.spectra.values.fill(0, pixel * stride, (pixel + 1) * stride);
    }
  }

  // Compute what is had of the whole block at once.
  prepare(asked) {
    const { image, patch } = this;
    if (patch === 1) return;
    this.counts = image.counts(patch);
    image.boxSums(patch, this.sums);
    if (this.nearSums) {
      this.nearCounts = image.counts(NEAR);
      image.boxSums(NEAR, this.nearSums);
    }
    this.merging?.prepare(asked, this.counts);
  }

  // Write what a batch's patches are seen by.
  gather(pixels) {
    const { image, centres, means, nears, spectra, network } = this;
    pixels.forEach((pixel, place) => centres.copyRow(place, image.spectra, pixel));
    if (this.patch > 1) gatherMeans(image, this.sums, this.counts, this.patch, pixels, means);
    else means.values.set(centres.values);
    if (this.nearSums) gatherMeans(image, this.nearSums, this.nearCounts, NEAR, pixels, nears);
    if (!network) return;
    if (this.merging) this.merging.gather(pixels, means, spectra);
    else spectra.values.set((network.options.gate === "mean" ? means : centres).values);
    const { linear_path: path } = network.options;
    if (path === "centre" || path === "mean") this.view.values.set((path === "mean" ? means : centres).values);
    if (path === "both") {
      const to = this.view.values, centre = centres.values, mean = means.values;
      for (let at = 0; at < to.length; at++) to[at] = (centre[at] + mean[at]) / 2;
    }
  }

  // Return the logits of network and companion together (models/committee.py).
  decide(count) {
    const { K, companion, means, nears, logits } = this;
    if (!this.network) return companion.judge ? this.propagated(count, null) : companion.classify(means, count);
    packed(this.network.classify(this.spectra, this.view, count), count, K, logits);
    if (!companion) return logits;
    for (let place = 0; place < count; place++) logSoftmax(logits, place * K, K);
    if (companion.judge) return this.propagated(count, logits);
    const known = companion.classify(means, count);
    for (let place = 0; place < count; place++) logSoftmax(known, place * K, K);
    for (let at = 0; at < count * K; at++) logits[at] = mixed(0.5, logits[at], 0.5, known[at]);
    return logits;
  }

  propagated(count, learned) {
    const { K, logits } = this;
    const { blunt, sharp, familiarity } = this.companion.judge(this.means, this.nears, count);
    for (let at = 0; at < count * K; at++) {
      const known = learned ? mixed(NETWORK, learned[at], 1 - NETWORK, sharp[at]) : sharp[at];
      const familiar = familiarity[Math.floor(at / K)];
      logits[at] = mixed(familiar, known, 1 - familiar, blunt[at]);
    }
    return logits;
  }
}

function logSoftmax(logits, start, count) {
  let top = -Infinity, sum = 0;
  for (let at = start; at < start + count; at++) top = Math.max(top, logits[at]);
  for (let at = start; at < start + count; at++) sum += Math.exp(logits[at] - top);
  const all = top + Math.log(sum);
  for (let at = start; at < start + count; at++) logits[at] -= all;
}

// Return the first of the most probable classes and its probability.
function surest(logits, start, count) {
  let best = 0, sum = 0;
  for (let k = 1; k < count; k++) if (logits[start + k] > logits[start + best]) best = k;
  for (let k = 0; k < count; k++) sum += Math.exp(logits[start + k] - logits[start + best]);
  return [best, 1 / sum];
}
