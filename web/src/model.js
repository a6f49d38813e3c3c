import { readBytes } from "./bytes.js";
import { Problem } from "./problem.js";
import { expectedTensors } from "./parts.js";

const FORMAT = "spectralmamba-classifier/1";
const LARGEST_HEADER = 100 << 20, LARGEST_TENSORS = 1 << 30;
// What the file may hold beside what decides: how unlike all classes a pixel is, and prediction sets.
const BESIDE = ["novelty.", "sets."];
const WAVELENGTH_TOLERANCE_NM = 1;

// Read a classifier that training wrote (safetensors; the card as JSON in the header) and check all that decides.
// Returns {name, card, tensors}, with tensors {name: {shape, values}}.
export async function openModel(file) {
  const { header, start } = await readHeader(file);
  const text = header.__metadata__?.card;
  delete header.__metadata__;
  if (text === undefined) throw new Problem("the file has no card", { file: file.name, expected: `a classifier (${FORMAT})` });
  let card;
  try {
    card = JSON.parse(text);
  } catch (error) {
    throw new Problem("the card is not JSON", { file: file.name, found: error.message });
  }
  if (card?.format !== FORMAT) throw new Problem("unknown kind of classifier", { file: file.name, found: card?.format ?? "none", expected: FORMAT });
  checkCard(card, file);
  const expected = expectedTensors(card, file.name);
  checkTensors(header, expected, file);
  const length = Math.max(0, ...Object.values(header).map((entry) => entry.data_offsets[1]));
  if (start + length > file.size) throw notWhole(file, `${file.size} of ${start + length} bytes`);
  if (length > LARGEST_TENSORS) throw new Problem("the model is too large for a browser", { file: file.name, found: `${length} bytes` });
  const bytes = await readBytes(file, start, length);
  const tensors = {};
  for (const [name, shape] of expected) {
    const [from, to] = header[name].data_offsets;
    const values = new Float32Array(bytes.slice(from, to).buffer);
    if (!values.every(Number.isFinite)) throw new Problem(`the tensor ${name} holds NaN or infinity`, { file: file.name });
    tensors[name] = { shape, values };
  }
  return { name: file.name, card, tensors };
}

async function readHeader(file) {
  const head = await readBytes(file, 0, Math.min(8, file.size));
  if (head.length < 8) throw notWhole(file, `${file.size} bytes`);
  const length = Number(new DataView(head.buffer).getBigUint64(0, true));
  if (length > LARGEST_HEADER || length < 2) throw notWhole(file, "no header of a safetensors file");
  if (8 + length > file.size) throw notWhole(file, `${file.size} bytes, in which the header does not end`);
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await readBytes(file, 8, length)));
  } catch {
    throw notWhole(file, "no header of a safetensors file");
  }
  if (header === null || typeof header !== "object") throw notWhole(file, "no header of a safetensors file");
  return { header, start: 8 + length };
}

function notWhole(file, found) {
  return new Problem("this is not a whole model file", {
    file: file.name, found, expected: "a model.safetensors that training wrote", remedy: "Copy it again, or choose the right file.",
  });
}

function checkCard(card, file) {
  const whole = (value, least, most) => Number.isInteger(value) && least <= value && value <= most;
  const ascending = (numbers, most) => Array.isArray(numbers) && numbers.length > 0
    && numbers.every((number, place) => whole(number, place ? numbers[place - 1] + 1 : 1, most));
  const { classes, bands, model } = card;
  const fine = Array.isArray(classes) && ascending(classes.map((entry) => entry?.id), 65535)
    && classes.every((entry) => typeof entry.name === "string" && /^#[0-9a-f]{6}$/i.test(entry.color))
    && whole(bands?.count, 1, 1e6) && ascending(bands.used, bands.count)
    && Array.isArray(bands.wavelength) && bands.wavelength.length === bands.count
    && bands.wavelength.every((value) => value === null || Number.isFinite(value))
    && typeof model?.name === "string" && whole(model.patch, 1, 999) && model.patch % 2 === 1 && model.options !== null
    && typeof model.options === "object";
  if (!fine) throw new Problem("the card does not describe a classifier", { file: file.name, remedy: "Copy the file again, or train again." });
}

function checkTensors(header, expected, file) {
  for (const [name, shape] of expected) {
    const entry = header[name];
    const [from, to] = entry?.data_offsets ?? [0, -1];
    const bytes = 4 * shape.reduce((product, length) => product * length, 1);
    if (entry?.dtype !== "F32" || JSON.stringify(entry.shape) !== JSON.stringify(shape) || !(from >= 0) || to - from !== bytes) {
      throw new Problem(`the tensor ${name} does not fit the card`, {
        file: file.name, found: entry ? `${entry.dtype} (${entry.shape})` : "none", expected: `F32 (${shape})`,
      });
    }
  }
  const strangers = Object.keys(header).filter((name) => !expected.has(name) && !BESIDE.some((prefix) => name.startsWith(prefix)));
  if (strangers.length) {
    throw new Problem("the model has parts that this page cannot compute", {
      file: file.name, found: strangers.slice(0, 4).join(", "), remedy: "Map with Python.",
    });
  }
}

// Refuse a scene in other bands than the model's.
export function checkBands(model, scene) {
  const { count, wavelength } = model.card.bands;
  if (scene.bands !== count) {
    throw new Problem("the scene has another number of bands than the model was trained with", {
      file: scene.name, found: scene.bands, expected: count, remedy: "Use a scene of the same product.",
    });
  }
  const apart = wavelength.map((value, band) => value !== null && Math.abs(value - scene.wavelength[band]) > WAVELENGTH_TOLERANCE_NM);
  const first = apart.indexOf(true);
  if (first >= 0) {
    throw new Problem(`${apart.filter(Boolean).length} bands lie at other wavelengths than the model's, the first is band ${first + 1}`, {
      file: scene.name, found: `${scene.wavelength[first].toFixed(2)} nm`,
      expected: `${wavelength[first].toFixed(2)} nm within ${WAVELENGTH_TOLERANCE_NM} nm`,
      remedy: "Bring it to the model's bands with spectralmamba resample.",
    });
  }
}
