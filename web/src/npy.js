import { asNumbers, readBytes } from "./bytes.js";
import { Problem } from "./problem.js";
import { plainSource } from "./plain_source.js";
import { unknownWavelengths } from "./wavelengths.js";

const LONGEST_HEADER = 1 << 16;

// Read the header of a .npy file (NumPy Enhancement Proposal 1): what `openNpy` takes.
export async function readNpyHeader(file) {
  const head = await readBytes(file, 0, Math.min(file.size, 12));
  const [start, wide] = head[6] === 1 ? [10, false] : [12, true];
  if (head.length < 12 || head[6] < 1 || head[6] > 3) throw notNpy(file, `version ${head[6]}`);
  const length = wide ? asNumbers(head.slice(8, 12), "u4")[0] : asNumbers(head.slice(8, 10), "u2")[0];
  if (length > LONGEST_HEADER) throw notNpy(file, `a header of ${length} bytes`);
  const text = new TextDecoder().decode(await readBytes(file, start, length));
  const descr = /'descr':\s*'([<>|=]?)([a-zA-Z]\d+)'/.exec(text);
  const order = /'fortran_order':\s*(True|False)/.exec(text);
  const shape = /'shape':\s*\(([\d,\s]*)\)/.exec(text);
  if (!order || !shape) throw notNpy(file, text.trim().slice(0, 80));
  const lengths = shape[1].split(",").filter((part) => part.trim()).map(Number);
  if (!descr || !["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"].includes(descr[2])) {
    throw new Problem("these values are not read", {
      file: file.name,
      found: descr ? `type ${descr[2]}` : text.trim().slice(0, 80),
      expected: "integers of 8 to 32 bits, or floating-point numbers of 32 or 64",
      remedy: "Save them with numpy's astype(\"float32\").",
    });
  }
  if (lengths.length !== 3 || lengths.includes(0)) {
    throw new Problem("there is no hyperspectral cube in this file", {
      file: file.name, found: `an array of shape (${lengths.join(", ")})`, expected: "three axes, (row, column, band) or (band, row, column)",
    });
  }
  if (order[1] === "True") {
    throw new Problem("the array lies in Fortran's order", {
      file: file.name, expected: "C order", remedy: "Save it again with numpy.save(path, numpy.ascontiguousarray(cube)).",
    });
  }
  return { file, type: descr[2], bigEndian: descr[1] === ">", shape: lengths, offset: start + length };
}

// Return the scene, with its bands on the first axis or on the last.
export function openNpy(header, bandsFirst) {
  const { file, shape } = header;
  const axes = bandsFirst ? [0, 1, 2] : [2, 0, 1];
  const [bands, rows, columns] = axes.map((axis) => shape[axis]);
  return {
    name: file.name, bands, rows, columns,
    source: plainSource(file, header.type, header.bigEndian, shape, axes, header.offset),
    scale: new Float64Array(bands).fill(1), offset: new Float64Array(bands), nodata: null,
    wavelength: unknownWavelengths(bands), place: [], notes: [],
  };
}

function notNpy(file, found) {
  return new Problem("is not a .npy file that can be read", { file: file.name, found, expected: "version 1 to 3 of NumPy's format" });
}
