import { Problem } from "./problem.js";

const PAGE = 65536;
const SPARE = 1 << 24; // bytes that the memory grows by at least
const LANES = 8; // columns that the product makes at once
const ROWS = 4;

export function padded(count, to = LANES) {
  return Math.ceil(count / to) * to;
}

// Memory that the kernels share with JavaScript. Nothing in it is ever given back: a worker makes all it needs at the start.
export class Memory {
  constructor(module) {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    this.kernels = new WebAssembly.Instance(module, { page: { memory: this.memory } }).exports;
    this.top = 16;
  }

  // All of it as float32, new where it has grown since.
  get floats() {
    if (this.view?.buffer !== this.memory.buffer) this.view = new Float32Array(this.memory.buffer);
    return this.view;
  }

  allocate(bytes) {
    const pointer = this.top;
    this.top += padded(bytes, 16);
    const lacking = this.top - this.memory.buffer.byteLength;
    if (lacking > 0) {
      try {
        this.memory.grow(Math.ceil(Math.max(lacking, SPARE) / PAGE));
      } catch {
        throw new Problem("the browser gives a worker too little memory for this model and scene", { remedy: "Map with Python." });
      }
    }
    return pointer;
  }
}

// Rows of float32, each padded with zeros to a multiple of 8 values, their number to a multiple of 4.
export class Matrix {
  constructor(memory, rows, columns) {
    Object.assign(this, { memory, columns, stride: padded(columns) });
    this.rows = padded(Math.max(1, rows), ROWS);
    this.pointer = memory.allocate(4 * this.rows * this.stride);
  }

  // A view, new where the memory has grown since.
  get values() {
    if (this.view?.buffer !== this.memory.memory.buffer) {
      this.view = new Float32Array(this.memory.memory.buffer, this.pointer, this.rows * this.stride);
    }
    return this.view;
  }

  at(row) {
    return this.pointer + 4 * row * this.stride;
  }

  // Do something in place to all values of the first rows: "exponential", "sigmoid", "silu" or "softplus".
  apply(name, rows) {
    if (rows) this.memory.kernels[name](this.pointer, this.at(rows));
  }

  copyRow(row, from, fromRow) {
    const start = from.pointer / 4 + fromRow * from.stride;
    this.memory.floats.copyWithin(this.pointer / 4 + row * this.stride, start, start + this.stride);
  }

  static of(memory, rows, columns, value) {
    const matrix = new Matrix(memory, rows, columns);
    const { values, stride } = matrix;
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) values[row * stride + column] = value(row, column);
    return matrix;
  }
}

// What a matrix (k × n) and a summand make of rows: x → x · matrix + bias, laid out as the kernel wants it. Columns that are made
// beside the n are 0, or `beside`.
export class Linear {
  constructor(memory, k, n, weight, bias = () => 0, beside = 0) {
    Object.assign(this, { memory, k, n: padded(n) });
    this.pointer = memory.allocate(4 * k * this.n);
    this.bias = Matrix.of(memory, 1, this.n, (_, column) => (column < n ? bias(column) : beside));
    const values = new Float32Array(memory.memory.buffer, this.pointer, k * this.n);
    for (let row = 0; row < k; row++) {
      for (let column = 0; column < n; column++) {
        const panel = Math.floor(column / LANES);
        values[(panel * k + row) * LANES + (column % LANES)] = weight(row, column);
      }
    }
  }

  // Write the product of the first rows of `from`.
  apply(from, rows, to) {
    if (!rows) return;
    this.memory.kernels.product(
      from.pointer, 4 * from.stride, this.pointer, this.bias.pointer, to.pointer, 4 * to.stride, padded(rows, ROWS), this.k, this.n,
    );
  }

  // Of torch's weight (n, k) and bias.
  static ofTensors(memory, weight, bias = null, factor = 1) {
    const [n, k] = weight.shape;
    return new Linear(memory, k, n, (row, column) => factor * weight.values[column * k + row], bias ? (column) => bias.values[column] : undefined);
  }
}
