const MOST_SHOWN = 4e6; // pixels of a picture; of larger scenes every other, third, … is shown
const SHOWN_NM = [860, 650, 550]; // near infrared, red, green as red, green, blue
const NEAR_ENOUGH_NM = 60;
const LOW = 0.02, HIGH = 0.98; // quantiles that become dark and bright
const SAMPLE = 20000;

// Return places among the model's bands to show as red, green and blue.
export function shownBands(used, wavelength) {
  const found = SHOWN_NM.map((wanted) => {
    const apart = used.map((number) => Math.abs(wavelength[number - 1] - wanted)).map((value) => (Number.isNaN(value) ? Infinity : value));
    const least = Math.min(...apart);
    return least <= NEAR_ENOUGH_NM ? apart.indexOf(least) : -1;
  });
  return found.every((place) => place >= 0) ? found : [0.75, 0.5, 0.25].map((share) => Math.floor(share * used.length));
}

// A scene in false colour, and its classes above.
export class Picture {
  constructor(scene, colours, below, above) {
    const step = Math.ceil(Math.sqrt((scene.rows * scene.columns) / MOST_SHOWN));
    Object.assign(this, { scene, colours, below, above, step });
    this.height = Math.ceil(scene.rows / step);
    this.width = Math.ceil(scene.columns / step);
    for (const canvas of [below, above]) Object.assign(canvas, { width: this.width, height: this.height });
    this.bands = [0, 1, 2].map(() => new Float32Array(this.width * this.height).fill(NaN));
    this.classes = new Uint16Array(this.width * this.height);
  }

  add({ rows, ids, picture }) {
    const { step, width } = this, { columns } = this.scene;
    for (let row = rows.start + ((step - (rows.start % step)) % step); row < rows.stop; row += step) {
      for (let column = 0; column < columns; column += step) {
        const from = (row - rows.start) * columns + column, to = (row / step) * width + column / step;
        this.classes[to] = ids[from];
        this.bands.forEach((band, place) => { band[to] = picture[place][from]; });
      }
    }
  }

  draw() {
    const seen = new ImageData(this.width, this.height), mapped = new ImageData(this.width, this.height);
    const limits = this.bands.map(stretch);
    for (let at = 0; at < this.classes.length; at++) {
      const colour = this.colours.get(this.classes[at]);
      if (colour) mapped.data.set([...colour, 255], 4 * at);
      if (Number.isNaN(this.bands[0][at])) continue;
      this.bands.forEach((band, place) => { seen.data[4 * at + place] = (255 * (band[at] - limits[place][0])) / limits[place][1]; });
      seen.data[4 * at + 3] = 255;
    }
    this.below.getContext("2d").putImageData(seen, 0, 0);
    this.above.getContext("2d").putImageData(mapped, 0, 0);
  }

  // Return the classes over false colour as a PNG.
  toPng(opacity) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    context.drawImage(this.below, 0, 0);
    context.globalAlpha = opacity;
    context.drawImage(this.above, 0, 0);
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  }
}

// Return what becomes black, and how much above it becomes white.
function stretch(band) {
  const step = Math.max(1, Math.floor(band.length / SAMPLE));
  const sample = [];
  for (let at = 0; at < band.length; at += step) if (Number.isFinite(band[at])) sample.push(band[at]);
  sample.sort((a, b) => a - b);
  if (!sample.length) return [0, 1];
  const low = sample[Math.floor(LOW * (sample.length - 1))], high = sample[Math.ceil(HIGH * (sample.length - 1))];
  return [low, high - low || 1];
}
