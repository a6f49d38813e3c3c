import { Problem } from "./problem.js";
import { plainSource } from "./plain_source.js";
import { toNanometres, unknownWavelengths } from "./wavelengths.js";
import { placeOfMap } from "./place.js";

const TYPES = { 1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4" };
const AXES = { bsq: [0, 1, 2], bil: [1, 0, 2], bip: [2, 0, 1] };
const REQUIRED = ["samples", "lines", "bands", "data type", "interleave", "byte order"];
const LARGEST_HEADER = 16 << 20;

// Open an ENVI scene of a header and a data file.
export async function openEnvi(headerFile, dataFile) {
  const header = await readHeader(headerFile);
  const bands = header.positive("bands"), rows = header.positive("lines"), columns = header.positive("samples");
  const type = TYPES[header.integer("data type")];
  if (type === undefined) {
    throw header.error("this data type is not read", `data type = ${header.entries.get("data type")}`, `one of ${Object.keys(TYPES).join(", ")}`);
  }
  const byteOrder = header.integer("byte order");
  if (byteOrder !== 0 && byteOrder !== 1) throw header.error("unknown byte order", `byte order = ${byteOrder}`, "0 (little-endian) or 1 (big-endian)");
  const axes = AXES[header.scalar("interleave").toLowerCase()];
  if (axes === undefined) throw header.error("unknown interleave", `interleave = ${header.scalar("interleave")}`, "bsq, bil or bip");
  if (header.integer("file compression", 0)) throw header.error("compressed ENVI files are not read", "file compression = 1", "0", "Save it uncompressed.");
  const shape = [0, 0, 0];
  axes.forEach((axis, place) => { shape[axis] = [bands, rows, columns][place]; });
  const factor = header.number("reflectance scale factor", 1);
  if (!(factor > 0)) throw header.error("impossible scale", `reflectance scale factor = ${factor}`, "a number above 0");
  const gain = header.numbers("data gain values", bands) ?? new Array(bands).fill(1);
  const offset = header.numbers("data offset values", bands) ?? new Array(bands).fill(0);
  const { place, notes } = placeOfMap(header);
  return {
    name: dataFile.name, bands, rows, columns,
    source: plainSource(dataFile, type, byteOrder === 1, shape, axes, header.integer("header offset", 0)),
    scale: Float64Array.from(gain, (value) => value / factor), offset: Float64Array.from(offset, (value) => value / factor),
    nodata: header.number("data ignore value", null),
    wavelength: toNanometres(header.numbers("wavelength", bands) ?? unknownWavelengths(bands), header.entries.get("wavelength units")),
    place, notes,
  };
}

class EnviHeader {
  constructor(name) {
    this.name = name;
    this.entries = new Map();
  }

  error(problem, found, expected, remedy = "Correct the header.") {
    return new Problem(problem, { file: this.name, found, expected, remedy });
  }

  // Return the text under a key, without what follows a semicolon.
  scalar(key) {
    return stripped(this.entries.get(key).split(";")[0]);
  }

  number(key, otherwise) {
    return this.entries.has(key) ? this.converted(key, this.scalar(key)) : otherwise;
  }

  integer(key, otherwise) {
    const value = this.number(key, otherwise);
    if (!Number.isInteger(value)) throw this.error("a value of the header cannot be understood", `${key} = ${this.entries.get(key)}`, "an integer");
    return value;
  }

  positive(key) {
    const value = this.integer(key);
    if (value < 1) throw this.error("an empty scene", `${key} = ${value}`, "1 or more");
    return value;
  }

  // Return the entries of a list, null if there are none.
  texts(key) {
    const text = stripped(this.entries.get(key) ?? "").replace(/,$/, "");
    return text ? text.split(",").map((entry) => entry.trim()) : null;
  }

  numbers(key, count) {
    const numbers = this.texts(key)?.map((text) => this.converted(key, text));
    if (numbers && numbers.length !== count) throw this.error(`the list '${key}' has not one entry a band`, numbers.length, count);
    return numbers ?? null;
  }

  converted(key, text) {
    const value = /^nan$/i.test(text) ? NaN : text === "" ? undefined : Number(text);
    if (value === undefined || (Number.isNaN(value) && !/^nan$/i.test(text))) {
      throw this.error("a value of the header cannot be understood", `${key} = '${text}'`, "a number");
    }
    return value;
  }
}

function stripped(text) {
  return text.replace(/^[{} \n\t]+|[{} \n\t]+$/g, "");
}

async function readHeader(file) {
  if (file.size > LARGEST_HEADER) throw new Problem("is not an ENVI header", { file: file.name, found: `${file.size} bytes`, expected: "a text file" });
  const lines = (await file.text()).replace(/^\uFEFF/, "").split(/\r\n|\r|\n/).filter((line) => !line.trimStart().startsWith(";"));
  if (lines[0].trim() !== "ENVI") {
    throw new Problem("is not an ENVI header", {
      file: file.name, found: lines[0] ? `'${lines[0].slice(0, 20)}'` : "an empty file", expected: "ENVI in the first line",
    });
  }
  const header = new EnviHeader(file.name);
  for (let at = 1; at < lines.length; at++) {
    const equals = lines[at].indexOf("=");
    if (equals < 0) continue;
    const key = lines[at].slice(0, equals).toLowerCase().trim().split(/\s+/).join(" ");
    let value = lines[at].slice(equals + 1).trim();
    while (value.startsWith("{") && !value.includes("}")) {
      if (++at >= lines.length) throw header.error("a brace is never closed", `${key} = ${value.slice(0, 20)} …`, "a closing brace }");
      value = `${value}\n${lines[at].trim()}`;
    }
    if (!stripped(value)) continue;
    if (header.entries.has(key) && header.entries.get(key) !== value) {
      throw header.error(`the key '${key}' is given twice`, `${header.entries.get(key)} and ${value}`, "one value");
    }
    header.entries.set(key, value);
  }
  const missing = REQUIRED.filter((key) => !header.entries.has(key));
  if (missing.length) throw header.error("the header lacks keys", `no ${missing.join(", no ")}`, REQUIRED.join(", "), "Add them to the header.");
  return header;
}
