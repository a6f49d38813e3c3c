import { asNumbers, bytesOf, readBytes, readParts } from "./bytes.js";
import { Problem } from "./problem.js";

const PIECE = 32 << 20; // bytes of lines that hold all bands, read at a time

// An uncompressed cube (ENVI, .npy) as a plain object that workers can be sent.
// shape: the lengths in the order of the file; axes: which of them holds the bands, the rows and the columns.
export function plainSource(file, type, bigEndian, shape, axes, offset) {
  const expected = offset + bytesOf(type) * shape[0] * shape[1] * shape[2];
  if (file.size !== expected) {
    throw new Problem("the data file does not have the size that its header promises", {
      file: file.name,
      found: `${file.size} bytes`,
      expected: `${expected} bytes (${shape.join(" × ")} values after ${offset} bytes of header)`,
      remedy: "Copy or download the file again if it is shorter; else correct the header.",
    });
  }
  return { kind: "plain", file, type, bigEndian, shape, axes, offset };
}

// Call `take(values, start, step, band, row)` for each line of raw values: value c of a line is values[start + c · step].
export async function readPlain(source, bands, rows, take) {
  const { file, type, bigEndian, shape, axes, offset } = source;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const [bandStride, rowStride, step] = axes.map((axis) => strides[axis]);
  const size = bytesOf(type);
  if (axes[1] === 1) {
    const parts = bands.map((band, place) => ({
      start: offset + size * (band * bandStride + rows.start * rowStride), length: size * (rows.stop - rows.start) * rowStride, place,
    }));
    await readParts(file, parts, (bytes, part) => {
      const values = asNumbers(bytes, type, bigEndian);
      for (let row = rows.start; row < rows.stop; row++) take(values, (row - rows.start) * rowStride, step, part.place, row);
    });
    return;
  }
  const atOnce = Math.max(1, Math.floor(PIECE / (size * rowStride)));
  for (let first = rows.start; first < rows.stop; first += atOnce) {
    const count = Math.min(atOnce, rows.stop - first);
    const values = asNumbers(await readBytes(file, offset + size * first * rowStride, size * count * rowStride), type, bigEndian);
    for (let row = first; row < first + count; row++) {
      bands.forEach((band, place) => take(values, (row - first) * rowStride + band * bandStride, step, place, row));
    }
  }
}
