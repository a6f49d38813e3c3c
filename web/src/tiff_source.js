import { asNumbers, bytesOf, readParts, swapBytes } from "./bytes.js";
import { decompress, undoDifferences, undoFloatPredictor } from "./decoding.js";

// Call `take(values, start, step, band, row)` for each line of raw values of a block: value c is values[start + c · step], and its
// column is `column` + c. What `tiff.js` describes lies in strips or tiles, of one band (planar) or of all.
export async function readTiff(source, bands, rows, take) {
  const { file, block, across, down, planar, samples, compression } = source;
  const size = bytesOf(source.type);
  const inBlock = planar ? 1 : samples;
  const parts = [];
  const from = Math.floor(rows.start / block.height), to = Math.ceil(rows.stop / block.height);
  for (const place of planar ? bands.keys() : [0]) {
    for (let y = from; y < to; y++) {
      for (let x = 0; x < across; x++) {
        const number = (planar ? bands[place] * across * down : 0) + y * across + x;
        const top = y * block.height;
        const height = source.tiled ? block.height : Math.min(block.height, source.rows - top);
        const part = { start: source.offsets[number], length: source.counts[number], place, top, left: x * block.width, first: 0, height };
        if (compression === 1) {
          // Of a block without compression its rows can be had alone.
          const line = block.width * inBlock * size;
          part.first = Math.max(0, rows.start - top);
          part.height = Math.min(height, rows.stop - top) - part.first;
          part.start += part.start && part.first * line;
          part.length = part.length && part.height * line;
        }
        parts.push(part);
      }
    }
  }
  const stored = parts.filter((part) => part.start && part.length);
  const giveLines = (values, part) => {
    const columns = Math.min(block.width, source.columns - part.left);
    const first = Math.max(rows.start, part.top + part.first), stop = Math.min(rows.stop, part.top + part.first + part.height);
    for (let row = first; row < stop; row++) {
      const start = (row - part.top - part.first) * block.width * inBlock;
      if (planar) take(values, start, 1, part.place, row, part.left, columns);
      else bands.forEach((band, place) => take(values, start + band, samples, place, row, part.left, columns));
    }
  };
  await readParts(file, stored, async (bytes, part) => {
    const length = part.height * block.width * inBlock * size;
    const raw = await decompress(bytes, compression, length, file);
    giveLines(asValues(source, raw, part.height, inBlock), part);
  });
  for (const part of parts) {
    // A block that is not stored holds nodata, or 0 where there is none.
    if (!part.start || !part.length) giveLines({ missing: true }, part);
  }
}

function asValues(source, raw, height, samples) {
  const { type, predictor, compression, bigEndian, block } = source;
  const size = bytesOf(type);
  if (compression === 1 || predictor === 1) return asNumbers(raw, type, bigEndian);
  const bytes = raw.byteOffset % size === 0 ? raw : raw.slice();
  if (predictor === 3) {
    undoFloatPredictor(bytes, size, block.width, samples, height);
  } else {
    if (bigEndian) swapBytes(bytes, size);
    undoDifferences(bytes, size, block.width, samples, height);
  }
  return asNumbers(bytes, type, false);
}
