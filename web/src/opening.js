import { readBytes } from "./bytes.js";
import { openEnvi } from "./envi.js";
import { readNpyHeader } from "./npy.js";
import { Problem } from "./problem.js";
import { openTiff } from "./tiff.js";

const OTHERS = "an ENVI header with its data file, a .npy file or a GeoTIFF";

// Open the scene in the files that were chosen: {scene}, or {npy}, a header whose bands may lie on two axes, or {wanted}, a sentence.
export async function openScene(files) {
  const kinds = await Promise.all(files.map(kindOf));
  const found = (kind) => files[kinds.indexOf(kind)];
  if (found("tiff")) return { scene: await openTiff(found("tiff")) };
  if (found("npy")) return { npy: await readNpyHeader(found("npy")) };
  const data = files.filter((_, place) => kinds[place] === "data");
  if (data.length > 1) throw new Problem("several data files", { found: data.map((file) => file.name).join(", "), expected: "one scene", remedy: "Choose one." });
  if (found("header") && data.length) return { scene: await openEnvi(found("header"), data[0]) };
  if (found("header")) return { wanted: `${found("header").name} is a header. Choose its data file, too.` };
  if (/\.(bsq|bil|bip|img|dat|raw|bin|rfl|envi)$/i.test(data[0].name) || !data[0].name.includes(".")) {
    return { wanted: `${data[0].name} needs its ENVI header. Choose the .hdr file, too.` };
  }
  throw new Problem("this file is no scene that can be read here", { file: data[0].name, expected: OTHERS });
}

async function kindOf(file) {
  if (/\.hdr$/i.test(file.name)) return "header";
  const head = await readBytes(file, 0, Math.min(file.size, 6));
  const text = String.fromCharCode(...head);
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text.slice(0, 4))) return "tiff";
  return text === "\x93NUMPY" ? "npy" : "data";
}
