// Where a scene lies, as the tags that a GeoTIFF has for it: a list of {tag, type, values} (GeoTIFF 1.1; TIFF 6.0, section 2).
export const TAGS = { pixelScale: 33550, tiePoint: 33922, matrix: 34264, keys: 34735, doubles: 34736, texts: 34737 };
export const PLACE_TAGS = Object.values(TAGS);
export const TYPES = { text: 2, short: 3, long: 4, double: 12 };

const MODEL_TYPE = 1024, RASTER_TYPE = 1025, GEOGRAPHIC = 2048, PROJECTED = 3072;
const IS_PROJECTED = 1, IS_GEOGRAPHIC = 2, IS_AREA = 1;
// EPSG's numbers before the zone, by datum and hemisphere: WGS 84 / UTM, ETRS89 / UTM, NAD83 / UTM.
const UTM = { "wgs-84": { north: 32600, south: 32700 }, wgs84: { north: 32600, south: 32700 }, etrs89: { north: 25800 }, "etrs-89": { north: 25800 } };
const WGS84 = 4326;

// Return tags and notes for the "map info" and "coordinate system string" of an ENVI header.
export function placeOfMap(header) {
  const fields = header.texts("map info");
  if (!fields || fields.length < 7) return { place: [], notes: [] };
  const [x, y, easting, northing, width, height] = fields.slice(1, 7).map((text) => header.converted("map info", text));
  const turn = fields.map((field) => /^rotation\s*=\s*(.*)$/i.exec(field)).find((found) => found);
  const place = affineTags(easting - (x - 1) * width, northing + (y - 1) * height, width, height, turn ? header.converted("map info", turn[1]) : 0);
  const keys = keysOfMap(fields, header.entries.get("coordinate system string"));
  if (keys === null) {
    const named = fields[0].toLowerCase() === "arbitrary";
    return { place, notes: named ? [] : ["The header's coordinate system has no plain EPSG number: the saved map has coordinates without it."] };
  }
  return { place: [...place, ...keys], notes: [] };
}

function affineTags(left, top, width, height, degrees) {
  if (degrees === 0) {
    return [
      { tag: TAGS.pixelScale, type: TYPES.double, values: [width, height, 0] },
      { tag: TAGS.tiePoint, type: TYPES.double, values: [0, 0, 0, left, top, 0] },
    ];
  }
  const turn = (-degrees * Math.PI) / 180;
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  const values = [cos * width, -sin * width, 0, left, -sin * height, -cos * height, 0, top, 0, 0, 0, 0, 0, 0, 0, 1];
  return [{ tag: TAGS.matrix, type: TYPES.double, values }];
}

// Return the tags of a coordinate system by its EPSG number, null where that is not plain.
function keysOfMap(fields, text) {
  const wkt = (text ?? "").replace(/^\s*\{|\}\s*$/g, "").trim();
  const projected = !/^GEOGCS/i.test(wkt) && !(wkt === "" && /^geographic/i.test(fields[0]));
  const code = epsg(wkt, fields);
  return code === null ? null : keyTag(projected, code);
}

function epsg(wkt, fields) {
  const root = /AUTHORITY\["EPSG",\s*"?(\d+)"?\]\s*\]$/i.exec(wkt);
  if (root) return Number(root[1]);
  const utm = /^PROJCS\["(?:WGS_1984|WGS 84 \/|ETRS_1989|ETRS89 \/)_?\s?UTM_?\s?zone_?\s?(\d+)([NS])"/i.exec(wkt);
  if (utm) return (/^PROJCS\["E/i.test(wkt) ? 25800 : utm[2].toUpperCase() === "N" ? 32600 : 32700) + Number(utm[1]);
  if (/^GEOGCS\["(GCS_WGS_1984|WGS 84)"/i.test(wkt)) return WGS84;
  if (wkt) return null;
  if (/^geographic/i.test(fields[0]) && (fields[7] ?? "WGS-84").toLowerCase() === "wgs-84") return WGS84;
  if (fields[0].toLowerCase() !== "utm" || fields.length < 10) return null;
  const series = UTM[fields[9].toLowerCase()]?.[fields[8].toLowerCase()];
  return series === undefined ? null : series + Number(fields[7]);
}

function keyTag(projected, code) {
  const entries = [[MODEL_TYPE, 0, 1, projected ? IS_PROJECTED : IS_GEOGRAPHIC], [RASTER_TYPE, 0, 1, IS_AREA]];
  entries.push([projected ? PROJECTED : GEOGRAPHIC, 0, 1, code]);
  return [{ tag: TAGS.keys, type: TYPES.short, values: [1, 1, 0, entries.length, ...entries.flat()] }];
}
