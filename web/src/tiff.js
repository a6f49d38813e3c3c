import { bytesOf, endsTooEarly, readBytes } from "./bytes.js";
import { COMPRESSIONS } from "./decoding.js";
import { PLACE_TAGS, TYPES } from "./place.js";
import { Problem } from "./problem.js";
import { toNanometres, unknownWavelengths } from "./wavelengths.js";

// Tags (TIFF 6.0; GDAL's GeoTIFF driver for the last two).
const SUBFILE = 254, WIDTH = 256, HEIGHT = 257, BITS = 258, COMPRESSION = 259, STRIP_OFFSETS = 273, SAMPLES = 277, STRIP_ROWS = 278;
const STRIP_COUNTS = 279, PLANAR = 284, PREDICTOR = 317, TILE_WIDTH = 322, TILE_HEIGHT = 323, TILE_OFFSETS = 324, TILE_COUNTS = 325;
const SAMPLE_FORMAT = 339, GDAL_METADATA = 42112, GDAL_NODATA = 42113;
const SIZES = { 1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8 };
const IS_MASK = 4; // a bit of NewSubfileType
const KINDS = ["u", "i", "f"];
const MOST_ENTRIES = 4096;
const LARGEST_BLOCK = 1 << 30;

// Open a GeoTIFF, classic or BigTIFF.
export async function openTiff(file) {
  const layout = await readLayout(file);
  const first = await readDirectory(file, layout, layout.position);
  await refuseMasks(file, layout, first.next);
  const value = async (tag, otherwise) => (first.entries.has(tag) ? (await readValues(file, layout, first.entries.get(tag)))[0] : otherwise);
  const columns = await value(WIDTH), rows = await value(HEIGHT), bands = await value(SAMPLES, 1);
  if (!(columns > 0 && rows > 0 && bands > 0)) throw damaged(file, "a directory without rows, columns or bands");
  const type = await readType(file, layout, first.entries);
  const compression = await value(COMPRESSION, 1), predictor = await value(PREDICTOR, 1);
  if (!(compression in COMPRESSIONS)) {
    throw new Problem("this compression is not read", {
      file: file.name, found: `number ${compression}`, expected: "none, deflate or LZW",
      remedy: "Save it again, say by gdal_translate -co COMPRESS=DEFLATE.",
    });
  }
  const asExpected = predictor === 1 || predictor === 2 || (predictor === 3 && type[0] === "f");
  if (!asExpected) throw damaged(file, `predictor ${predictor} of type ${type}`);
  const tiled = first.entries.has(TILE_OFFSETS);
  const block = {
    width: tiled ? await value(TILE_WIDTH) : columns,
    height: tiled ? await value(TILE_HEIGHT) : Math.min(rows, await value(STRIP_ROWS, rows)),
  };
  if (!(block.width > 0 && block.height > 0)) throw damaged(file, "blocks without size");
  const planar = bands > 1 && (await value(PLANAR, 1)) === 2;
  const across = Math.ceil(columns / block.width), down = Math.ceil(rows / block.height);
  const [offsets, counts] = await Promise.all(
    (tiled ? [TILE_OFFSETS, TILE_COUNTS] : [STRIP_OFFSETS, STRIP_COUNTS]).map((tag) => (
      first.entries.has(tag) ? readValues(file, layout, first.entries.get(tag)) : []
    )),
  );
  const expected = across * down * (planar ? bands : 1);
  if (offsets.length < expected || counts.length < expected) throw damaged(file, `${offsets.length} of ${expected} blocks`);
  const bytes = block.width * block.height * bytesOf(type) * (planar ? 1 : bands);
  if (compression !== 1 && bytes > LARGEST_BLOCK) {
    throw new Problem("its compressed blocks are too large for a browser", {
      file: file.name, found: `${bytes} bytes each`, expected: `${LARGEST_BLOCK} at most`, remedy: "Save it in tiles: gdal_translate -co TILED=YES.",
    });
  }
  let end = 0;
  for (let at = 0; at < expected; at++) if (offsets[at]) end = Math.max(end, offsets[at] + counts[at]);
  if (end > file.size) throw endsTooEarly(file, end);
  const text = async (tag) => (first.entries.has(tag) ? textOf(await readValues(file, layout, first.entries.get(tag))) : "");
  const metadata = new Metadata(await text(GDAL_METADATA), bands, file);
  const nodata = (await text(GDAL_NODATA)).trim();
  return {
    name: file.name, bands, rows, columns,
    source: {
      kind: "tiff", file, type, bigEndian: layout.bigEndian, compression, predictor, tiled, planar, samples: bands,
      block, across, down, offsets, counts, rows, columns,
    },
    scale: metadata.ofRole("scale", 1), offset: metadata.ofRole("offset", 0),
    nodata: nodata === "" || Number.isNaN(Number(nodata)) ? null : Number(nodata),
    wavelength: metadata.wavelengths(),
    place: await readPlace(file, layout, first.entries), notes: [],
  };
}

async function readLayout(file) {
  const head = await readBytes(file, 0, Math.min(file.size, 16));
  const view = new DataView(head.buffer);
  if (head.length < 8) throw endsTooEarly(file, 8);
  const bigEndian = head[0] === 0x4d;
  const big = view.getUint16(2, !bigEndian) === 43;
  if (big && head.length < 16) throw endsTooEarly(file, 16);
  const position = big ? Number(view.getBigUint64(8, !bigEndian)) : view.getUint32(4, !bigEndian);
  return { bigEndian, position, word: big ? 8 : 4, count: big ? 8 : 2, entry: big ? 20 : 12 };
}

async function readDirectory(file, layout, position) {
  const little = !layout.bigEndian;
  const number = (view, at, size) => (size === 8 ? Number(view.getBigUint64(at, little)) : size === 4 ? view.getUint32(at, little) : view.getUint16(at, little));
  const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const count = number(viewOf(await readBytes(file, position, layout.count)), 0, layout.count);
  if (count > MOST_ENTRIES) throw damaged(file, `a directory of ${count} entries`);
  const bytes = await readBytes(file, position + layout.count, count * layout.entry + layout.word);
  const view = viewOf(bytes);
  const entries = new Map();
  for (let at = 0; at < count * layout.entry; at += layout.entry) {
    const field = at + layout.entry - layout.word;
    const entry = { type: view.getUint16(at + 2, little), count: number(view, at + 4, layout.word), field: bytes.slice(field, field + layout.word) };
    const length = entry.count * (SIZES[entry.type] ?? 1);
    entry.length = length;
    entry.position = length > layout.word ? number(view, field, layout.word) : null;
    if (entry.position !== null && entry.position + length > file.size) throw endsTooEarly(file, entry.position + length);
    entries.set(view.getUint16(at, little), entry);
  }
  return { entries, next: number(view, count * layout.entry, layout.word) };
}

// Return the values of an entry as numbers; those of text are its bytes.
async function readValues(file, layout, entry) {
  const bytes = entry.position === null ? entry.field.subarray(0, entry.length) : await readBytes(file, entry.position, entry.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = !layout.bigEndian;
  const read = {
    3: (at) => view.getUint16(at, little), 4: (at) => view.getUint32(at, little), 8: (at) => view.getInt16(at, little),
    9: (at) => view.getInt32(at, little), 11: (at) => view.getFloat32(at, little), 12: (at) => view.getFloat64(at, little),
    13: (at) => view.getUint32(at, little), 16: (at) => Number(view.getBigUint64(at, little)),
  }[entry.type] ?? ((at) => view.getUint8(at));
  const size = SIZES[entry.type] ?? 1;
  const values = new Float64Array(Math.floor(bytes.length / size));
  for (let place = 0; place < values.length; place++) values[place] = read(place * size);
  return values;
}

function textOf(values) {
  const bytes = Uint8Array.from(values);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

async function readType(file, layout, entries) {
  const all = async (tag, otherwise) => (entries.has(tag) ? [...new Set(await readValues(file, layout, entries.get(tag)))] : [otherwise]);
  const bits = await all(BITS, 1), formats = await all(SAMPLE_FORMAT, 1);
  const type = `${KINDS[formats[0] - 1]}${bits[0] / 8}`;
  if (bits.length > 1 || formats.length > 1 || !["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"].includes(type)) {
    throw new Problem("these values are not read", {
      file: file.name, found: `${bits.join(" and ")} bits of sample format ${formats.join(" and ")}`,
      expected: "integers of 8 to 32 bits, or floating-point numbers of 32 or 64, the same in all bands",
    });
  }
  return type;
}

// A mask in the file leaves out pixels that would be mapped here.
async function refuseMasks(file, layout, position) {
  const seen = new Set();
  while (position && !seen.has(position)) {
    seen.add(position);
    const { entries, next } = await readDirectory(file, layout, position);
    const subfile = entries.has(SUBFILE) ? (await readValues(file, layout, entries.get(SUBFILE)))[0] : 0;
    if (subfile & IS_MASK) {
      throw new Problem("the file has a mask inside, which is not read here", {
        file: file.name, remedy: "Map it with Python, or burn the mask into the values as nodata.",
      });
    }
    position = next;
  }
}

async function readPlace(file, layout, entries) {
  const place = [];
  for (const tag of PLACE_TAGS.filter((each) => entries.has(each))) {
    const entry = entries.get(tag), values = await readValues(file, layout, entry);
    place.push({ tag, type: entry.type, values: entry.type === TYPES.text ? textOf(values) : [...values] });
  }
  // Ground control points are several tie points; they are no grid, and not carried over.
  const gridless = place.some(({ values }) => values.length > 6 && values.length % 6 === 0 && Array.isArray(values))
    && !entries.has(33550) && !entries.has(34264);
  return gridless ? [] : place;
}

// What GDAL's metadata say of the bands: items with name, band (`sample`), domain and role.
class Metadata {
  constructor(text, bands, file) {
    this.bands = bands;
    this.file = file;
    const xml = text ? new DOMParser().parseFromString(text, "application/xml") : null;
    this.items = [...(xml?.getElementsByTagName("Item") ?? [])].map((item) => ({
      name: (item.getAttribute("name") ?? "").toLowerCase(),
      band: item.hasAttribute("sample") ? Number(item.getAttribute("sample")) : null,
      domain: item.getAttribute("domain") ?? "",
      role: item.getAttribute("role") ?? "",
      text: item.textContent,
    }));
  }

  ofRole(role, otherwise) {
    const values = new Float64Array(this.bands).fill(otherwise);
    for (const item of this.items) {
      if (item.role === role && item.band !== null && item.band < this.bands) values[item.band] = this.number(item);
    }
    return values;
  }

  wavelengths() {
    const bare = this.items.filter((item) => item.domain === "" && item.role === "");
    const ofBands = bare.filter((item) => item.band !== null && item.name === "wavelength");
    const unitNames = ["wavelength_units", "wavelength units", "wavelength_unit"];
    const whole = [...bare.filter((item) => item.band === null), ...this.items.filter((item) => item.domain === "ENVI" && item.band === null)];
    const units = [...bare.filter((item) => item.band !== null), ...whole].find((item) => unitNames.includes(item.name) && item.text)?.text;
    if (ofBands.length) return toNanometres(this.numbers(ofBands), units);
    const list = whole.find((item) => item.name === "wavelength");
    if (list) {
      const values = list.text.replace(/[{}\s]/g, "").split(",").map(Number);
      if (values.length !== this.bands || values.some(Number.isNaN)) throw this.problem("wavelength", list.text.slice(0, 60));
      return toNanometres(values, units);
    }
    const micrometres = this.items.filter((item) => item.domain === "IMAGERY" && item.name === "central_wavelength_um" && item.band !== null);
    return micrometres.length ? toNanometres(this.numbers(micrometres), "µm") : unknownWavelengths(this.bands);
  }

  numbers(items) {
    const values = unknownWavelengths(this.bands);
    for (const item of items) if (item.band < this.bands) values[item.band] = this.number(item);
    return values;
  }

  number(item) {
    const value = Number(item.text);
    if (item.text.trim() === "" || (Number.isNaN(value) && !/^\s*nan\s*$/i.test(item.text))) throw this.problem(item.name, item.text.slice(0, 60));
    return value;
  }

  problem(name, found) {
    return new Problem(`the tag '${name}' cannot be understood`, {
      file: this.file.name, found, expected: `a number for each of the ${this.bands} bands`, remedy: "Correct or remove the tag.",
    });
  }
}

function damaged(file, found) {
  return new Problem("the TIFF file is cut off or damaged", { file: file.name, found, remedy: "Copy or download it again." });
}
