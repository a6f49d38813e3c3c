import { Problem } from "./problem.js";

// Compression (TIFF 6.0, section 9 and 13; Adobe's technical note 3 for deflate).
export const COMPRESSIONS = { 1: "none", 5: "LZW", 8: "deflate", 32946: "deflate" };

export async function decompress(bytes, compression, length, file) {
  const method = COMPRESSIONS[compression];
  if (method === "none") return bytes;
  const decoded = method === "LZW" ? decodeLzw(bytes, length) : await inflate(bytes, length, file);
  if (decoded.length < length) throw damaged(file, `${decoded.length} bytes in a block of ${length}`);
  return decoded;
}

async function inflate(bytes, length, file) {
  const out = new Uint8Array(length);
  let filled = 0;
  try {
    const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
    while (filled < length) {
      const { done, value } = await reader.read();
      if (done) break;
      const part = value.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.length;
    }
    reader.cancel().catch(() => {}); // what may follow the values is no part of them
  } catch (error) {
    throw damaged(file, error.message);
  }
  return out.subarray(0, filled);
}

function damaged(file, found) {
  return new Problem("the values cannot be read", {
    file: file.name, found, expected: "a whole file", remedy: "The file is damaged; copy or download it again.",
  });
}

// Decode TIFF's LZW: codes of 9 to 12 bits, the highest bit first, each width given up one code early (TIFF 6.0, section 13).
function decodeLzw(bytes, length) {
  const CLEAR = 256, END = 257, FIRST = 258, MOST = 4096;
  const prefix = new Uint16Array(MOST), last = new Uint8Array(MOST), lengths = new Uint16Array(MOST);
  for (let code = 0; code < 256; code++) {
    last[code] = code;
    lengths[code] = 1;
  }
  const out = new Uint8Array(length);
  let filled = 0, width = 9, next = FIRST, previous = -1, buffer = 0, bits = 0, at = 0;
  while (filled < length) {
    while (bits < width && at < bytes.length) {
      buffer = (buffer << 8) | bytes[at++];
      bits += 8;
    }
    if (bits < width) break;
    bits -= width;
    const code = buffer >>> bits;
    buffer &= (1 << bits) - 1;
    if (code === END) break;
    if (code === CLEAR) {
      width = 9;
      next = FIRST;
      previous = -1;
      continue;
    }
    if (code > next || (code === next && previous < 0)) break; // no such code yet: the block is damaged
    const known = code < next;
    if (previous >= 0 && next < MOST) {
      let first = known ? code : previous;
      while (first >= FIRST) first = prefix[first];
      prefix[next] = previous;
      last[next] = last[first];
      lengths[next] = lengths[previous] + 1;
      next++;
    }
    const count = lengths[code];
    let place = filled + count, walk = code;
    for (let step = 0; step < count; step++) {
      place--;
      if (place < length) out[place] = last[walk];
      walk = prefix[walk];
    }
    filled += count;
    previous = code;
    if (next + 1 >= 1 << width && width < 12) width++;
  }
  return out.subarray(0, Math.min(filled, length));
}

const WHOLE = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };

// Undo the difference to the pixel before, in place; the bytes are little-endian (TIFF 6.0, section 14).
export function undoDifferences(bytes, size, width, samples, height) {
  const values = new WHOLE[size](bytes.buffer, bytes.byteOffset, width * samples * height);
  for (let row = 0; row < height; row++) {
    const start = row * width * samples;
    for (let at = start + samples; at < start + width * samples; at++) values[at] += values[at - samples];
  }
}

// Undo the floating-point predictor (Adobe's technical note 3); the result is little-endian whatever the file's order is.
export function undoFloatPredictor(bytes, size, width, samples, height) {
  const count = width * samples, line = count * size;
  const before = new Uint8Array(line);
  for (let row = 0; row < height; row++) {
    const values = bytes.subarray(row * line, (row + 1) * line);
    for (let at = samples; at < line; at++) values[at] += values[at - samples];
    before.set(values);
    for (let at = 0; at < count; at++) {
      for (let byte = 0; byte < size; byte++) values[at * size + byte] = before[(size - 1 - byte) * count + at];
    }
  }
}
