import { Problem } from "./problem.js";

// Names of number types: kind and bytes. 64-bit integers have no place in a float32 scene that is read by slices.
export const ARRAYS = {
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array,
};

const TOGETHER = 32 << 20; // bytes that are read at once at most, unless a single part is larger
const GAP = 1 << 16; // bytes between parts that are read over, because another read takes longer

export function bytesOf(type) {
  return ARRAYS[type].BYTES_PER_ELEMENT;
}

// Return the bytes of a part of a file, as a Uint8Array of its own.
export async function readBytes(file, start, length) {
  let buffer;
  try {
    buffer = await file.slice(start, start + length).arrayBuffer();
  } catch (error) {
    throw new Problem("the file cannot be read", {
      file: file.name, found: error.message, remedy: "It may have changed or gone. Choose it again.",
    });
  }
  if (buffer.byteLength < length) throw endsTooEarly(file, start + length);
  return new Uint8Array(buffer);
}

export function endsTooEarly(file, expected) {
  return new Problem("the file is cut off", {
    file: file.name, found: `${file.size} bytes`, expected: `at least ${expected} bytes`, remedy: "Copy or download it again.",
  });
}

// Call `use(bytes, part)` for parts {start, length} of a file, those that lie near each other read at once.
export async function readParts(file, parts, use) {
  const sorted = [...parts].sort((a, b) => a.start - b.start);
  for (let first = 0; first < sorted.length; ) {
    const start = sorted[first].start;
    let end = start + sorted[first].length;
    let next = first + 1;
    while (next < sorted.length && sorted[next].start - end < GAP) {
      const further = Math.max(end, sorted[next].start + sorted[next].length);
      if (further - start > TOGETHER) break;
      end = further;
      next++;
    }
    const bytes = await readBytes(file, start, end - start);
    await Promise.all(sorted.slice(first, next).map((part) => {
      const from = part.start - start;
      return use(bytes.subarray(from, from + part.length), part);
    }));
    first = next;
  }
}

// View bytes as numbers of a type. Big-endian ones are turned in place; the processors that browsers run on are little-endian.
export function asNumbers(bytes, type, bigEndian) {
  const size = bytesOf(type);
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  if (bigEndian) swapBytes(aligned, size);
  return new ARRAYS[type](aligned.buffer, aligned.byteOffset, Math.floor(aligned.length / size));
}

export function swapBytes(bytes, size) {
  for (let at = 0; size > 1 && at + size <= bytes.length; at += size) {
    bytes.subarray(at, at + size).reverse();
  }
}
