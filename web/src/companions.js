import { Linear, Matrix } from "./matrices.js";
import { NEAR } from "./parts.js";

// Of models/committee.py: how much the blunt view steadies the sharp one, how steeply a pair's vote follows its decision, and counts.
const STEADYING = 1 / 3, STEEPNESS = 3, VOTE = 4;
const FAR = -3e38; // nearness of what no spectrum is
const TINY = 1.1754943508222875e-38; // the least normal float32

export function companionOf(memory, { kind, size, prefix }, tensors, bands, classes, patch, batch) {
  const tensor = (name) => tensors[prefix + name];
  const Kind = { "label propagation": LabelPropagation, "support vectors": SupportVectors, "logistic regression": LogisticRegression }[kind];
  return new Kind(memory, tensor, { bands, classes, size, patch, batch });
}

// The mean of what S spectra know, weighted by a Gaussian kernel of the distance.
class KernelSmoother {
  constructor(memory, tensor, { bands, classes, size, batch }, tellsRemoteness) {
    const support = tensor("support").values, shares = tensor("shares").values;
    const spacing = tellsRemoteness ? tensor("spacing").values : null;
    Object.assign(this, { support, spacing, gamma: tensor("gamma").values[0], size, bands, classes });
    const squares = new Float32Array(size);
    for (let s = 0; s < size; s++) for (let band = 0; band < bands; band++) squares[s] += support[s * bands + band] ** 2;
    this.nearness = new Linear(memory, bands, size, (band, s) => 2 * support[s * bands + band], (s) => -squares[s], FAR);
    this.shares = new Linear(memory, size, classes, (s, k) => shares[s * classes + k]);
    this.weights = new Matrix(memory, batch, size);
    this.known = new Matrix(memory, batch, classes);
    this.logits = new Float32Array(batch * classes);
    this.totals = new Float32Array(batch);
    this.remoteness = new Float32Array(batch);
  }

  // Write logits, and how remote each spectrum is if that is asked for.
  judge(spectra, count) {
    const { size, classes, weights, known } = this;
    this.nearness.apply(spectra, count, weights);
    const { largest, weigh } = weights.memory.kernels;
    const { values, stride } = weights;
    for (let pixel = 0; pixel < count; pixel++) {
      const top = largest(weights.at(pixel), weights.at(pixel + 1));
      if (this.spacing) {
        const nearest = values.subarray(pixel * stride, pixel * stride + size).indexOf(top);
        this.remoteness[pixel] = this.distance(spectra, pixel, nearest) / this.spacing[nearest];
      }
      this.totals[pixel] = weigh(weights.at(pixel), weights.at(pixel + 1), top, this.gamma);
    }
    this.shares.apply(weights, count, known);
    const { values: found, stride: foundStride } = known;
    for (let pixel = 0; pixel < count; pixel++) {
      for (let k = 0; k < classes; k++) {
        this.logits[pixel * classes + k] = Math.log(Math.max(found[pixel * foundStride + k] / this.totals[pixel], TINY));
      }
    }
    return this.logits;
  }

  distance({ values, stride }, pixel, nearest) {
    let squares = 0;
    for (let band = 0; band < this.bands; band++) squares += (values[pixel * stride + band] - this.support[nearest * this.bands + band]) ** 2;
    return Math.sqrt(squares);
  }
}

class LabelPropagation {
  constructor(memory, tensor, shape) {
    const { bands, patch, batch, classes } = shape;
    const sharpening = tensor("sharpening").values;
    const smoother = (view) => new KernelSmoother(memory, (name) => tensor(`${view}.${name}`), shape, view === "blunt");
    this.classes = classes;
    this.sharpening = new Linear(memory, bands, bands, (row, column) => sharpening[row * bands + column]);
    this.blunt = smoother("blunt");
    this.sharp = smoother("sharp");
    this.near = patch > NEAR ? smoother("near") : null;
    this.sharpened = new Matrix(memory, batch, bands);
    this.both = new Float32Array(batch * classes);
    this.familiarity = new Float32Array(batch);
  }

  // Return the logits of the blunt and of the sharp view, and the familiarity of each pixel.
  judge(means, nears, count) {
    const blunt = this.blunt.judge(means, count);
    this.sharpening.apply(means, count, this.sharpened);
    let sharp = this.sharp.judge(this.sharpened, count);
    if (this.near) {
      this.sharpening.apply(nears, count, this.sharpened);
      sharp = meanOf([0.5, sharp], [0.5, this.near.judge(this.sharpened, count)], count * this.classes, this.both);
    } else {
      sharp = meanOf([1 - STEADYING, sharp], [STEADYING, blunt], count * this.classes, this.both);
    }
    for (let pixel = 0; pixel < count; pixel++) this.familiarity[pixel] = Math.max(1, this.blunt.remoteness[pixel]) ** -3;
    return { blunt, sharp, familiarity: this.familiarity };
  }
}

function meanOf([weight, logits], [other, others], count, to) {
  for (let at = 0; at < count; at++) to[at] = mixed(weight, logits[at], other, others[at]);
  return to;
}

// Return the logarithm of the weighted mean of two probabilities that are given by theirs.
export function mixed(weight, logit, other, otherLogit) {
  const first = Math.log(weight) + logit, second = Math.log(other) + otherLogit;
  const top = Math.max(first, second);
  return top === -Infinity ? top : top + Math.log(Math.exp(first - top) + Math.exp(second - top));
}

// Machines of pairs of classes; logits count the votes that a class gets.
class SupportVectors {
  constructor(memory, tensor, { bands, classes, size, batch }) {
    const support = tensor("support").values, coefficients = tensor("coefficients"), intercepts = tensor("intercepts").values;
    const pairs = coefficients.shape[1];
    const squares = new Float32Array(size);
    for (let s = 0; s < size; s++) for (let band = 0; band < bands; band++) squares[s] += support[s * bands + band] ** 2;
    Object.assign(this, { bands, classes, size, pairs, squares, gamma: tensor("gamma").values[0] });
    this.mean = tensor("mean").values;
    this.inverseSd = tensor("inverse_sd").values;
    this.nearness = new Linear(memory, bands, size, (band, s) => -2 * support[s * bands + band]);
    this.coefficients = new Linear(memory, size, pairs, (s, pair) => coefficients.values[s * pairs + pair], (pair) => intercepts[pair]);
    this.standard = new Matrix(memory, batch, bands);
    this.kernel = new Matrix(memory, batch, size);
    this.decisions = new Matrix(memory, batch, pairs);
    this.logits = new Float32Array(batch * classes);
  }

  classify(means, count) {
    const { bands, classes, size, standard, kernel, decisions, logits, mean, inverseSd, squares, gamma } = this;
    const lengths = new Float32Array(count);
    const from = means.values, to = standard.values, weights = kernel.values, decided = decisions.values;
    for (let pixel = 0; pixel < count; pixel++) {
      for (let band = 0; band < bands; band++) {
        const value = Math.fround((from[pixel * means.stride + band] - mean[band]) * inverseSd[band]);
        to[pixel * standard.stride + band] = value;
        lengths[pixel] += value * value;
      }
    }
    this.nearness.apply(standard, count, kernel);
    for (let pixel = 0; pixel < count; pixel++) {
      for (let s = 0, at = pixel * kernel.stride; s < size; s++, at++) {
        weights[at] = -gamma * Math.max(0, lengths[pixel] + squares[s] + weights[at]);
      }
    }
    kernel.apply("exponential", count);
    this.coefficients.apply(kernel, count, decisions);
    logits.fill(0);
    for (let pixel = 0; pixel < count; pixel++) {
      let at = pixel * decisions.stride;
      for (let first = 0; first < classes; first++) {
        for (let second = first + 1; second < classes; second++, at++) {
          const vote = 1 / (1 + Math.exp(-STEEPNESS * decided[at]));
          logits[pixel * classes + first] += VOTE * vote;
          logits[pixel * classes + second] += VOTE * (1 - vote);
        }
      }
    }
    return logits;
  }
}

class LogisticRegression {
  constructor(memory, tensor, { classes, batch }) {
    this.linear = Linear.ofTensors(memory, tensor("weight"), tensor("bias"));
    this.made = new Matrix(memory, batch, classes);
    this.classes = classes;
    this.logits = new Float32Array(batch * classes);
  }

  classify(means, count) {
    this.linear.apply(means, count, this.made);
    return packed(this.made, count, this.classes, this.logits);
  }
}

// Copy the first rows of a matrix without what they are padded with.
export function packed({ values, stride }, rows, columns, to) {
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) to[row * columns + column] = values[row * stride + column];
  return to;
}
