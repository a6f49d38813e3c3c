import { Linear, Matrix, padded } from "./matrices.js";

const EPSILON = 1e-5; // of torch's LayerNorm
const LINEAR_PATH_GAIN = 0.2;

// SpectralMamba after the merging: spectra → logits. Letters as in models/spectral_mamba.py: T tokens, R piece, M width, E channels,
// N states, K classes.
export class Network {
  constructor(memory, options, tensors, classes, batch) {
    const tensor = (name) => tensors[options.prefix + name];
    const { width: M, tokens: T, tokenBands: R } = options;
    Object.assign(this, { options, classes });
    this.embedding = Linear.ofTensors(memory, tensor("embedding.projection.weight"), tensor("embedding.projection.bias"));
    this.position = tensor("embedding.position").values;
    this.blocks = [];
    for (let number = 0; number < options.blocks; number++) {
      const inside = (name) => tensor(`blocks.${number}.${name}`);
      this.blocks.push({
        norm: normOf(tensor, `norms.${number}`),
        mix: options.block === "mlp" ? new Perceptron(memory, inside, options, batch) : new S6Block(memory, inside, options, batch),
      });
    }
    this.finalNorm = normOf(tensor, "final_norm");
    this.head = Linear.ofTensors(memory, tensor("head.weight"), tensor("head.bias"));
    this.linearPath = options.linear_path === "none" ? null : Linear.ofTensors(memory, tensor("linear_path.weight"), null, LINEAR_PATH_GAIN);
    this.pieces = new Matrix(memory, batch * T, R);
    this.x = new Matrix(memory, batch * T, M);
    this.normed = new Matrix(memory, batch * T, M);
    this.pooled = new Matrix(memory, batch, M);
    this.logits = new Matrix(memory, batch, classes);
    this.beside = new Matrix(memory, batch, classes);
  }

  // Write the logits of `count` merged spectra, and of what the linear path sees, to `this.logits`.
  classify(spectra, view, count) {
    const { tokens: T, tokenBands: R, width: M } = this.options;
    this.cut(spectra, count);
    const rows = count * T;
    this.embedding.apply(this.pieces, rows, this.x);
    const { values: x, stride } = this.x;
    for (let row = 0; row < rows; row++) {
      const place = (row % T) * M;
      for (let column = 0; column < M; column++) x[row * stride + column] += this.position[place + column];
    }
    for (const { norm, mix } of this.blocks) {
      normalise(this.x, rows, norm, this.normed);
      mix.addTo(this.x, this.normed, count, T);
    }
    normalise(this.x, rows, this.finalNorm, this.normed);
    this.pool(count, T, M);
    this.head.apply(this.pooled, count, this.logits);
    if (this.linearPath) {
      this.linearPath.apply(view, count, this.beside);
      const { values: logits } = this.logits, { values: beside } = this.beside;
      for (let at = 0; at < count * this.logits.stride; at++) logits[at] += beside[at];
    }
    return this.logits;
  }

  cut(spectra, count) {
    const { tokens: T, tokenBands: R } = this.options;
    const { values: from, stride: fromStride, columns: L } = spectra;
    const { values: to, stride } = this.pieces;
    for (let pixel = 0; pixel < count; pixel++) {
      for (let band = 0; band < T * R; band++) {
        to[(pixel * T + Math.floor(band / R)) * stride + (band % R)] = band < L ? from[pixel * fromStride + band] : 0;
      }
    }
  }

  pool(count, T, M) {
    const { values: from, stride: fromStride } = this.normed;
    const { values: to, stride } = this.pooled;
    for (let pixel = 0; pixel < count; pixel++) {
      for (let column = 0; column < M; column++) {
        let sum = 0;
        for (let token = 0; token < T; token++) sum += from[(pixel * T + token) * fromStride + column];
        to[pixel * stride + column] = sum / T;
      }
    }
  }
}

function normOf(tensor, name) {
  return { weight: tensor(`${name}.weight`).values, bias: tensor(`${name}.bias`).values };
}

function normalise(from, rows, { weight, bias }, to) {
  const { values, stride, columns } = from;
  const out = to.values;
  for (let row = 0; row < rows; row++) {
    const start = row * stride;
    let sum = 0, squares = 0;
    for (let column = 0; column < columns; column++) sum += values[start + column];
    const mean = sum / columns;
    for (let column = 0; column < columns; column++) squares += (values[start + column] - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / columns + EPSILON);
    for (let column = 0; column < columns; column++) {
      out[start + column] = (values[start + column] - mean) * factor * weight[column] + bias[column];
    }
  }
}

function addRows(target, from, rows) {
  target.memory.kernels.add(target.pointer, from.pointer, target.at(rows));
}

class Perceptron {
  constructor(memory, tensor, { width, channels, tokens }, batch) {
    this.first = Linear.ofTensors(memory, tensor("0.weight"), tensor("0.bias"));
    this.second = Linear.ofTensors(memory, tensor("2.weight"), tensor("2.bias"));
    this.hidden = new Matrix(memory, batch * tokens, channels);
    this.out = new Matrix(memory, batch * tokens, width);
  }

  addTo(x, normed, count, T) {
    this.first.apply(normed, count * T, this.hidden);
    this.hidden.apply("silu", count * T);
    this.second.apply(this.hidden, count * T, this.out);
    addRows(x, this.out, count * T);
  }
}

class S6Block {
  constructor(memory, tensor, options, batch) {
    const { width: M, channels: E, states: N, deltaRank: rank, convolution, tokens } = options;
    // States are padded to whole vectors: a padded one has A, B and C of 0, and stays 0.
    const states = padded(N, 4), bAt = padded(rank, 4), cAt = bAt + states;
    Object.assign(this, { memory, E, states, bAt, cAt, taps: convolution });
    const into = tensor("input_projection.weight").values, selection = tensor("selection.weight").values;
    this.intoU = new Linear(memory, M, E, (row, column) => into[column * M + row]);
    this.intoZ = new Linear(memory, M, E, (row, column) => into[(E + column) * M + row]);
    this.kernel = tensor("convolution.weight").values;
    this.kernelBias = tensor("convolution.bias").values;
    const source = (column) => {
      if (column < bAt) return column < rank ? column : -1;
      const state = column < cAt ? column - bAt : column - cAt;
      return state < N ? rank + (column < cAt ? 0 : N) + state : -1;
    };
    this.selection = new Linear(memory, E, cAt + states, (row, column) => (source(column) < 0 ? 0 : selection[source(column) * E + row]));
    this.deltaProjection = Linear.ofTensors(memory, tensor("delta_projection.weight"), tensor("delta_projection.bias"));
    const logarithm = tensor("A_log").values, D = tensor("D").values;
    this.A = memory.allocate(4 * E * states);
    const A = new Float32Array(memory.memory.buffer, this.A, E * states);
    for (let e = 0; e < E; e++) for (let n = 0; n < N; n++) A[e * states + n] = -Math.exp(logarithm[e * N + n]) * Math.LOG2E;
    this.D = Matrix.of(memory, 1, E, (_, column) => D[column]);
    this.output = Linear.ofTensors(memory, tensor("output_projection.weight"));
    const rows = batch * tokens;
    [this.before, this.u, this.z, this.delta] = [1, 2, 3, 4].map(() => new Matrix(memory, rows, E));
    this.selected = new Matrix(memory, rows, cAt + states);
    this.out = new Matrix(memory, rows, M);
    this.state = new Matrix(memory, 1, E * states);
  }

  addTo(x, normed, count, T) {
    const rows = count * T;
    this.intoU.apply(normed, rows, this.before);
    this.intoZ.apply(normed, rows, this.z);
    this.z.apply("silu", rows);
    this.convolve(count, T);
    this.u.apply("silu", rows);
    this.selection.apply(this.u, rows, this.selected);
    this.deltaProjection.apply(this.selected, rows, this.delta);
    this.delta.apply("softplus", rows);
    this.scan(count, T);
    this.memory.kernels.multiply(this.u.pointer, this.z.pointer, this.u.at(rows));
    this.output.apply(this.u, rows, this.out);
    addRows(x, this.out, rows);
  }

  // Convolve each channel with the tokens before.
  convolve(count, T) {
    const { values: from, stride } = this.before;
    const { values: to } = this.u;
    const { E, taps, kernel, kernelBias } = this;
    for (let pixel = 0; pixel < count; pixel++) {
      for (let token = 0; token < T; token++) {
        const row = (pixel * T + token) * stride;
        for (let e = 0; e < E; e++) to[row + e] = kernelBias[e];
        for (let tap = Math.max(0, taps - 1 - token); tap < taps; tap++) {
          const earlier = row - (taps - 1 - tap) * stride;
          for (let e = 0; e < E; e++) to[row + e] += kernel[e * taps + tap] * from[earlier + e];
        }
      }
    }
  }

  scan(count, T) {
    const { scan } = this.memory.kernels;
    const { u, delta, selected, state, E } = this;
    for (let pixel = 0; pixel < count; pixel++) {
      state.values.fill(0);
      for (let token = 0; token < T; token++) {
        const row = pixel * T + token, start = u.at(row), chosen = selected.at(row);
        scan(start, start + 4 * E, delta.at(row), this.A, chosen + 4 * this.bAt, chosen + 4 * this.cAt, this.D.pointer, state.pointer, 4 * this.states);
      }
    }
  }
}
