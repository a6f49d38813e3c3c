import { TYPES } from "./place.js";
import { Problem } from "./problem.js";

const SIZES = { [TYPES.text]: 1, [TYPES.short]: 2, [TYPES.long]: 4, [TYPES.double]: 8 };
const STRIP = 1 << 20; // bytes of a strip before compression
const LARGEST = 0xffffffff; // positions have 32 bits
const DEFLATE = 8, NONE = 1, PALETTE = 3, MIN_IS_BLACK = 1;

// Return a GeoTIFF of one band as a Blob, deflated where the browser can.
// values: a typed array, row by row; format: 1 unsigned, 3 float; colours: {value: [red, green, blue]}; items: {name: text}.
export async function writeGeoTiff({ values, rows, columns, format, nodata, colours, items, place }) {
  const bytes = values.BYTES_PER_ELEMENT, line = columns * bytes;
  const stripRows = Math.min(rows, Math.max(1, Math.floor(STRIP / line)));
  const deflate = typeof CompressionStream === "function";
  const parts = [], offsets = [], counts = [];
  let position = 8;
  for (let row = 0; row < rows; row += stripRows) {
    const strip = values.subarray(row * columns, Math.min(rows, row + stripRows) * columns);
    const stored = deflate ? await compressed(strip) : new Uint8Array(strip.buffer, strip.byteOffset, strip.byteLength);
    offsets.push(position);
    counts.push(stored.byteLength);
    parts.push(stored);
    position += stored.byteLength;
  }
  const pad = position % 2;
  parts.push(new Uint8Array(pad));
  position += pad;
  const entries = [
    [256, TYPES.long, [columns]], [257, TYPES.long, [rows]], [258, TYPES.short, [8 * bytes]],
    [259, TYPES.short, [deflate ? DEFLATE : NONE]], [262, TYPES.short, [colours ? PALETTE : MIN_IS_BLACK]],
    [273, TYPES.long, offsets], [277, TYPES.short, [1]], [278, TYPES.long, [stripRows]], [279, TYPES.long, counts],
    [339, TYPES.short, [format]], [42112, TYPES.text, metadata(items)], [42113, TYPES.text, nodata],
    ...place.map(({ tag, type, values: of }) => [tag, type, of]),
  ];
  if (colours) entries.push([320, TYPES.short, colourMap(colours, 2 ** (8 * bytes))]);
  const directory = directoryBytes(entries, position);
  if (position + directory.byteLength > LARGEST) throw new Problem("the map is too large for a GeoTIFF of this page", { remedy: "Map with Python." });
  const head = new DataView(new ArrayBuffer(8));
  head.setUint16(0, 0x4949, true);
  head.setUint16(2, 42, true);
  head.setUint32(4, position, true);
  return new Blob([head, ...parts, directory], { type: "image/tiff" });
}

async function compressed(values) {
  return new Uint8Array(await new Response(new Blob([values]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
}

function colourMap(colours, count) {
  const map = new Array(3 * count).fill(0);
  for (const [value, components] of Object.entries(colours)) {
    components.forEach((component, place) => { map[place * count + Number(value)] = component * 257; });
  }
  return map;
}

// GDAL escapes values twice, and takes them so.
function metadata(items) {
  const escaped = (text) => text.replace(/[^\P{Cc}\n\t]/gu, " ").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
  const lines = Object.entries(items).map(([name, text]) => `<Item name="${escaped(name)}">${escaped(escaped(text))}</Item>`);
  return `<GDALMetadata>\n${lines.join("\n")}\n</GDALMetadata>`;
}

// Return the directory at a position, with what does not fit its entries behind it.
function directoryBytes(entries, position) {
  const encoded = entries.map(([tag, type, values]) => [tag, type, encode(type, values)]).sort((a, b) => a[0] - b[0]);
  const start = 2 + 12 * encoded.length + 4;
  const size = encoded.reduce((sum, [, , bytes]) => sum + (bytes.length > 4 ? bytes.length + (bytes.length % 2) : 0), start);
  const all = new Uint8Array(size), view = new DataView(all.buffer);
  view.setUint16(0, encoded.length, true);
  let free = start;
  encoded.forEach(([tag, type, bytes], place) => {
    const at = 2 + 12 * place;
    view.setUint16(at, tag, true);
    view.setUint16(at + 2, type, true);
    view.setUint32(at + 4, bytes.length / SIZES[type], true);
    if (bytes.length <= 4) {
      all.set(bytes, at + 8);
      return;
    }
    view.setUint32(at + 8, position + free, true);
    all.set(bytes, free);
    free += bytes.length + (bytes.length % 2);
  });
  return all;
}

function encode(type, values) {
  if (type === TYPES.text) return new TextEncoder().encode(`${values}\0`);
  const Kind = { [TYPES.short]: Uint16Array, [TYPES.long]: Uint32Array, [TYPES.double]: Float64Array }[type];
  return new Uint8Array(Kind.from(values).buffer);
}
