import { readPlain } from "./plain_source.js";
import { readTiff } from "./tiff_source.js";

// Return the physical values (bands, rows, columns) of some rows of a scene, NaN where the file holds nodata.
export async function readStrip(scene, bands, rows) {
  const { columns, source } = scene;
  const height = rows.stop - rows.start;
  const values = new Float32Array(bands.length * height * columns);
  const nodata = rawNodata(scene.nodata, source.type);
  const read = source.kind === "tiff" ? readTiff : readPlain;
  await read(source, bands, rows, (raw, start, step, place, row, left = 0, count = columns) => {
    const scale = scene.scale[bands[place]], offset = scene.offset[bands[place]];
    const to = (place * height + row - rows.start) * columns + left;
    if (raw.missing) {
      values.fill(nodata === null ? offset : NaN, to, to + count);
      return;
    }
    for (let column = 0, at = start; column < count; column++, at += step) {
      const value = raw[at];
      values[to + column] = value === nodata ? NaN : value * scale + offset;
    }
  });
  return values;
}

// Return the nodata value as a number of the file's type, null if that cannot hold it.
function rawNodata(nodata, type) {
  if (nodata === null || !Number.isFinite(nodata)) return null;
  if (type === "f4") return Math.fround(nodata);
  if (type === "f8") return nodata;
  const bits = 8 * Number(type[1]);
  const [least, most] = type[0] === "u" ? [0, 2 ** bits - 1] : [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  return Number.isInteger(nodata) && least <= nodata && nodata <= most ? nodata : null;
}
