import { Linear, Matrix } from "./matrices.js";

// What networks ask of the patches of an image of transformed spectra. An image is a Matrix of height · width rows; pixels without
// values are zeros in it. A neighbour that is missing, by nodata or beyond the border, is replaced by the patch's centre.
export class Image {
  constructor(memory, bands, pixels, patch) {
    Object.assign(this, { memory, bands, patch, reach: (patch - 1) / 2, height: 0, width: 0 });
    this.spectra = new Matrix(memory, pixels, bands);
    this.along = new Matrix(memory, pixels, bands);
    this.valid = new Uint8Array(pixels);
  }

  // Write the sums over the windows of a width around all pixels, as far as pixels are there.
  boxSums(width, to) {
    this.sumWindows(this.spectra, this.width, this.height, this.width, -(width - 1) / 2, width, width, (row) => row * this.width, this.height, to, true);
  }

  // Sum windows of `tall` × `wide` of an image of `columns` columns and `rows` rows; the first begins at `shift` in both directions.
  // Each of `countRows` × `count` sums is added to `to`, from the place that `start(row)` tells, or written there.
  sumWindows(from, columns, rows, count, shift, tall, wide, start, countRows, to, fresh) {
    const { add } = this.memory.kernels;
    const { along } = this;
    along.values.fill(0, 0, rows * count * along.stride);
    for (let row = 0; row < rows; row++) {
      for (let offset = shift; offset < shift + wide; offset++) {
        const first = Math.max(0, -offset), stop = Math.min(count, columns - offset);
        if (first < stop) add(along.at(row * count + first), from.at(row * columns + first + offset), along.at(row * count + stop));
      }
    }
    for (let row = 0; row < countRows; row++) {
      const target = start(row);
      if (fresh) to.values.fill(0, target * to.stride, (target + count) * to.stride);
      for (let offset = shift; offset < shift + tall; offset++) {
        const other = row + offset;
        if (other >= 0 && other < rows) add(to.at(target), along.at(other * count), to.at(target + count));
      }
    }
  }

  // Return how many pixels of the window around each are there.
  counts(width) {
    const { height, width: columns, valid } = this;
    const reach = (width - 1) / 2;
    const along = new Uint16Array(height * columns), counts = new Uint32Array(height * columns);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < columns; column++) {
        const stop = Math.min(columns, column + reach + 1);
        for (let other = Math.max(0, column - reach); other < stop; other++) along[row * columns + column] += valid[row * columns + other];
      }
    }
    for (let row = 0; row < height; row++) {
      for (let other = Math.max(0, row - reach); other < Math.min(height, row + reach + 1); other++) {
        for (let column = 0; column < columns; column++) counts[row * columns + column] += along[other * columns + column];
      }
    }
    return counts;
  }

  // Return where the pixel some rows and columns from a pixel lies; the pixel itself where that one is missing.
  neighbour(pixel, down, across) {
    const row = Math.floor(pixel / this.width) + down, column = (pixel % this.width) + across;
    if (row < 0 || row >= this.height || column < 0 || column >= this.width) return pixel;
    const other = row * this.width + column;
    return this.valid[other] ? other : pixel;
  }
}

// Make means of windows of their sums, with the centre in place of what is missing; write them to the first rows of a batch.
export function gatherMeans(image, sums, counts, width, pixels, to) {
  const { values: spectra, stride } = image.spectra;
  const { bands } = image, summed = sums.values, out = to.values;
  const area = width * width;
  pixels.forEach((pixel, place) => {
    const missing = area - counts[pixel], from = pixel * stride, start = place * stride;
    for (let band = 0; band < bands; band++) out[start + band] = (summed[from + band] + missing * spectra[from + band]) / area;
  });
}

const AROUND = [-1, 0, 1];

// A depthwise and a pointwise convolution and a sigmoid. The bias of the first goes into that of the second.
class Gate {
  constructor(memory, tensor, bands) {
    const depthwise = tensor("depthwise.weight").values, depthwiseBias = tensor("depthwise.bias").values;
    const pointwise = tensor("pointwise.weight").values, pointwiseBias = tensor("pointwise.bias").values;
    const biasOf = (column) => depthwiseBias.reduce((sum, value, band) => sum + value * pointwise[column * bands + band], pointwiseBias[column]);
    this.memory = memory;
    this.taps = AROUND.map((down) => AROUND.map((across) => Matrix.of(memory, 1, bands, (_, band) => depthwise[band * 9 + (down + 1) * 3 + across + 1])));
    this.pointwise = new Linear(memory, bands, bands, (row, column) => pointwise[column * bands + row], biasOf);
  }

  // Add what the tap of a neighbour says of `count` pixels beside each other; `other` is the first one's neighbour.
  addTap(to, row, count, spectra, other, down, across) {
    this.memory.kernels.tap(to.at(row), to.at(row + count), spectra.at(other), this.taps[down + 1][across + 1].pointer, 4 * to.stride);
  }

  // Make gates of the first rows of what the taps added up to.
  apply(mixed, rows, gates) {
    this.pointwise.apply(mixed, rows, gates);
    gates.apply("sigmoid", rows);
  }
}

// The gate that every value of a patch has of its own (GatedMerging). Of an image each pixel has nine, by which of its neighbours lie
// in the patch; a patch's sum is made of nine sums over them.
export class PositionMerging {
  constructor(memory, tensor, image) {
    const { bands, patch } = image;
    const pixels = Math.max(image.spectra.rows, patch ** 2);
    Object.assign(this, { image, memory, gate: new Gate(memory, tensor, bands) });
    [this.mixed, this.gates] = [1, 2].map(() => new Matrix(memory, pixels, bands));
    this.merged = new Matrix(memory, image.spectra.rows, bands);
    this.patchSpectra = new Matrix(memory, patch ** 2, bands);
  }

  // Merge the patches of all pixels that are asked for; `counts` tells which are whole.
  prepare(asked, counts) {
    const { image } = this;
    const whole = image.patch ** 2;
    if (asked.some((pixel) => counts[pixel] === whole)) this.mergeWhole();
    for (const pixel of asked) if (counts[pixel] !== whole) this.mergeAlone(pixel);
  }

  mergeWhole() {
    const { patch } = this.image;
    this.merged.values.fill(0);
    for (const [top, tall] of [[0, 1], [1, patch - 2], [patch - 1, 1]]) {
      for (const [left, wide] of [[0, 1], [1, patch - 2], [patch - 1, 1]]) this.addPart(top, tall, left, wide);
    }
  }

  // Add to all whole patches what a part of them, some rows and columns, comes to.
  addPart(top, tall, left, wide) {
    const { image, gate, mixed, gates, memory, merged } = this;
    const { patch, reach, width, spectra } = image;
    const rows = image.height - patch + 1, columns = width - patch + 1;
    const partRows = rows + tall - 1, partColumns = columns + wide - 1;
    // Neighbours that lie in the patch.
    const downs = AROUND.filter((down) => (down < 0 ? top > 0 : down === 0 || top + tall < patch));
    const acrosses = AROUND.filter((across) => (across < 0 ? left > 0 : across === 0 || left + wide < patch));
    mixed.values.fill(0, 0, partRows * partColumns * mixed.stride);
    for (let row = 0; row < partRows; row++) {
      for (const down of downs) {
        for (const across of acrosses) {
          gate.addTap(mixed, row * partColumns, partColumns, spectra, (row + top + down) * width + left + across, down, across);
        }
      }
    }
    gate.apply(mixed, partRows * partColumns, gates);
    for (let row = 0; row < partRows; row++) {
      memory.kernels.multiply(gates.at(row * partColumns), spectra.at((row + top) * width + left), gates.at((row + 1) * partColumns));
    }
    image.sumWindows(gates, partColumns, partRows, columns, 0, tall, wide, (row) => (row + reach) * width + reach, rows, merged, false);
  }

  // Merge one patch, whose missing pixels are copies of its centre.
  mergeAlone(pixel) {
    const { image, gate, mixed, gates, merged, memory, patchSpectra } = this;
    const { patch, reach } = image;
    for (let place = 0; place < patch * patch; place++) {
      patchSpectra.copyRow(place, image.spectra, image.neighbour(pixel, Math.floor(place / patch) - reach, (place % patch) - reach));
    }
    mixed.values.fill(0, 0, patch * patch * mixed.stride);
    for (let row = 0; row < patch; row++) {
      for (const down of AROUND) {
        if (row + down < 0 || row + down >= patch) continue;
        for (const across of AROUND) {
          const first = Math.max(0, -across), count = patch - Math.abs(across);
          gate.addTap(mixed, row * patch + first, count, patchSpectra, (row + down) * patch + first + across, down, across);
        }
      }
    }
    gate.apply(mixed, patch * patch, gates);
    memory.kernels.multiply(gates.pointer, patchSpectra.pointer, gates.at(patch * patch));
    merged.values.fill(0, pixel * merged.stride, (pixel + 1) * merged.stride);
    for (let row = 0; row < patch * patch; row++) memory.kernels.add(merged.at(pixel), gates.at(row), merged.at(pixel + 1));
  }

  // Write what the patches of a batch merge into.
  gather(pixels, means, to) {
    const factor = 2 / this.image.patch ** 2;
    const { values, stride } = this.merged;
    const out = to.values;
    pixels.forEach((pixel, place) => {
      for (let band = 0; band < stride; band++) out[place * stride + band] = factor * values[pixel * stride + band];
    });
  }
}

// One gate a patch, from its middle 3 × 3 pixels, times twice the patch's mean (SharedGateMerging).
export class SharedMerging {
  constructor(memory, tensor, image, batch) {
    Object.assign(this, { image, gate: new Gate(memory, tensor, image.bands), mixed: new Matrix(memory, batch, image.bands) });
  }

  prepare() {}

  gather(pixels, means, to) {
    const { image, gate, mixed } = this;
    mixed.values.fill(0);
    pixels.forEach((pixel, place) => {
      for (const down of AROUND) {
        for (const across of AROUND) gate.addTap(mixed, place, 1, image.spectra, image.neighbour(pixel, down, across), down, across);
      }
    });
    gate.apply(mixed, pixels.length, to);
    const out = to.values, mean = means.values;
    for (let at = 0; at < pixels.length * to.stride; at++) out[at] *= 2 * mean[at];
  }
}
