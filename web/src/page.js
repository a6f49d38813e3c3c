import { writeGeoTiff } from "./geotiff_writer.js";
import { startMapping } from "./mapping.js";
import { checkBands, openModel } from "./model.js";
import { openNpy } from "./npy.js";
import { openScene } from "./opening.js";
import { Picture, shownBands } from "./picture.js";
import { Problem } from "./problem.js";

const UNSIGNED = 1, FLOAT = 3; // sample formats of TIFF
const DRAW_EVERY_MS = 500;
const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

// What was chosen, and what came of it.
const chosen = { files: [], npy: null, scene: null, model: null };
const turns = { scene: 0, model: 0 }; // so that what is read late does not replace what was chosen since
let cancel = null, result = null;

function say(id, text, isProblem = false) {
  element(id).textContent = text;
  element(id).classList.toggle("problem", isProblem);
}

function messageOf(error) {
  if (!(error instanceof Problem)) console.warn(error);
  return error instanceof Problem ? error.message : `This page failed: ${error.message}. Please report it.`;
}

async function chooseScene(files) {
  if (!files.length || cancel) return;
  // A header and its data may be chosen one after the other.
  const isHeader = (file) => /\.hdr$/i.test(file.name);
  const before = chosen.files.length === 1 && !chosen.scene && !chosen.npy ? chosen.files : [];
  const pair = files.length === 1 && before.length === 1 && isHeader(files[0]) !== isHeader(before[0]);
  Object.assign(chosen, { files: pair ? [...before, ...files] : files, scene: null, npy: null });
  element("axis").hidden = true;
  say("scene-status", "Reading …");
  const turn = ++turns.scene;
  try {
    const opened = await openScene(chosen.files);
    if (turn !== turns.scene) return;
    if (opened.wanted) say("scene-status", opened.wanted);
    if (opened.npy) chosen.npy = opened.npy;
    if (opened.scene) showScene(opened.scene);
    placeNpyBands();
  } catch (error) {
    if (turn !== turns.scene) return;
    chosen.files = [];
    say("scene-status", messageOf(error), true);
  }
  update();
}

// Of a .npy file, take the axis that has as many bands as the model, and ask where both or none have.
function placeNpyBands() {
  if (!chosen.npy) return;
  const { shape } = chosen.npy, wanted = chosen.model?.card.bands.count;
  const fits = [shape[0] === wanted, shape[2] === wanted];
  element("axis").hidden = fits[0] !== fits[1];
  if (fits[0] !== fits[1]) element(fits[0] ? "bands-first" : "bands-last").checked = true;
  element("first-bands").textContent = `first (${shape[0]})`;
  element("last-bands").textContent = `last (${shape[2]})`;
  const answer = document.querySelector('input[name="axis"]:checked')?.value;
  if (!answer) {
    chosen.scene = null;
    say("scene-status", `${chosen.npy.file.name}: ${shape.join(" × ")} values. Which axis holds the bands?`);
    return;
  }
  try {
    showScene(openNpy(chosen.npy, answer === "first"));
  } catch (error) {
    say("scene-status", messageOf(error), true);
  }
}

function showScene(scene) {
  chosen.scene = scene;
  const known = scene.wavelength.filter((value) => !Number.isNaN(value));
  const range = known.length ? `, ${Math.round(Math.min(...known))} to ${Math.round(Math.max(...known))} nm` : "";
  const size = `${number.format(scene.rows)} rows, ${number.format(scene.columns)} columns, ${scene.bands} bands${range}`;
  say("scene-status", [`${scene.name}: ${size}.`, ...scene.notes].join(" "));
}

async function chooseModel(file) {
  if (!file || cancel) return;
  chosen.model = null;
  say("model-status", "Reading …");
  const turn = ++turns.model;
  try {
    const model = await openModel(file);
    if (turn !== turns.model) return;
    chosen.model = model;
    const { classes, bands, model: entry } = model.card;
    const beside = entry.companion ? ` with ${entry.companion.kind}` : "";
    const kind = `${entry.name.replaceAll("_", " ")}${beside}`;
    say("model-status", `${file.name}: ${classes.length} classes, ${bands.count} bands, patches of ${entry.patch} × ${entry.patch}, ${kind}.`);
    placeNpyBands();
  } catch (error) {
    if (turn === turns.model) say("model-status", messageOf(error), true);
  }
  update();
}

function update() {
  let problem = "";
  if (chosen.scene && chosen.model) {
    try {
      checkBands(chosen.model, chosen.scene);
    } catch (error) {
      problem = messageOf(error);
    }
  }
  element("map").disabled = !chosen.scene || !chosen.model || Boolean(problem) || Boolean(cancel);
  if (!cancel) say("run-status", problem, Boolean(problem));
}

function setRunning(running) {
  for (const id of ["scene-file", "model-file", "bands-first", "bands-last"]) element(id).disabled = running;
  element("cancel").hidden = !running;
  element("progress").hidden = !running;
  element("map").hidden = running;
  if (running) element("cancel").focus();
}

function map() {
  const { scene, model } = chosen;
  const { used } = model.card.bands;
  const colours = new Map(model.card.classes.map((entry) => [entry.id, [1, 3, 5].map((at) => parseInt(entry.color.slice(at, at + 2), 16))]));
  const shown = shownBands(used, scene.wavelength);
  const workers = navigator.hardwareConcurrency || 2;
  element("result").hidden = true;
  let made;
  try {
    made = {
      scene, model, colours,
      ids: new Uint16Array(scene.rows * scene.columns), confidence: new Float32Array(scene.rows * scene.columns),
      picture: new Picture(scene, colours, element("below"), element("above")), shown: shown.map((place) => used[place]),
    };
    const begun = performance.now();
    let done = 0, drawn = begun;
    const stop = startMapping({
      kernels: KERNELS, source: WORKER, model, scene, picture: shown, workers,
      onStrip: (strip) => {
        made.ids.set(strip.ids, strip.rows.start * scene.columns);
        made.confidence.set(strip.confidence, strip.rows.start * scene.columns);
        made.picture.add(strip);
        done += strip.ids.length;
        element("progress").value = done / made.ids.length;
        say("run-status", `${number.format(done)} of ${number.format(made.ids.length)} pixels`);
        if (performance.now() - drawn > DRAW_EVERY_MS) {
          if (element("result").hidden) showPlace(made);
          made.picture.draw();
          drawn = performance.now();
        }
      },
      onEnd: () => end(() => showResult(made, (performance.now() - begun) / 1000, workers)),
      onProblem: (message) => end(() => say("run-status", message, true)),
    });
    cancel = () => {
      stop();
      end(() => say("run-status", "Cancelled."));
    };
  } catch (error) {
    say("run-status", messageOf(error instanceof RangeError ? new Problem("the scene has too many pixels for this browser", { file: scene.name }) : error), true);
    return;
  }
  element("progress").value = 0;
  say("run-status", "Starting …");
  setRunning(true);
}

function end(then) {
  cancel = null;
  setRunning(false);
  update();
  element("result").hidden = true;
  then();
  element("map").focus();
}

// Show where the map comes to lie, before it is complete.
function showPlace(made) {
  element("result").hidden = false;
  element("complete").hidden = true;
  element("seen").textContent = "";
  element("stack").style.setProperty("--ratio", made.picture.width / made.picture.height);
  element("stack").classList.toggle("enlarged", made.picture.width < 800);
  element("cross").hidden = true;
}

function showResult(made, seconds, workers) {
  const counts = new Map();
  for (const id of made.ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  const nodata = counts.get(0) ?? 0, mapped = made.ids.length - nodata;
  if (!mapped) {
    say("run-status", `${made.scene.name}: no pixel has values in all bands that the model needs.`, true);
    return;
  }
  result = { ...made, cursor: { row: Math.floor(made.scene.rows / 2), column: Math.floor(made.scene.columns / 2) } };
  showPlace(made);
  element("complete").hidden = false;
  made.picture.draw();
  showLegend(made, counts, mapped, nodata);
  const speed = number.format(Math.round(made.ids.length / seconds));
  say("run-status", `${number.format(made.ids.length)} pixels in ${seconds.toFixed(1)} s, ${speed} a second (${workers} workers).`);
  element("run-status").dataset.speed = made.ids.length / seconds;
  element("false-colour").textContent = `Below the classes: bands ${made.shown.join(", ")} as red, green, blue.`;
}

function showLegend(made, counts, mapped, nodata) {
  const row = (colour, name, count, of) => {
    const line = document.createElement("tr");
    const [swatch, title, pixels, share] = ["td", "th", "td", "td"].map((kind) => line.appendChild(document.createElement(kind)));
    const patch = swatch.appendChild(document.createElement("span"));
    patch.className = "swatch";
    if (colour) patch.style.backgroundColor = colour;
    title.scope = "row";
    title.textContent = name;
    pixels.textContent = number.format(count);
    share.textContent = of ? `${((100 * count) / of).toFixed(1)} %` : "";
    return line;
  };
  const lines = made.model.card.classes.map((entry) => row(entry.color, entry.name, counts.get(entry.id) ?? 0, mapped));
  if (nodata) lines.push(row(null, "no data", nodata, 0));
  element("legend").replaceChildren(...lines);
}

// Tell what the map says of a pixel.
function point(row, column) {
  const { scene, ids, confidence, model } = result;
  result.cursor = { row, column };
  const id = ids[row * scene.columns + column];
  const name = model.card.classes.find((entry) => entry.id === id)?.name;
  const what = id ? `${name}, confidence ${confidence[row * scene.columns + column].toFixed(2)}` : "no data";
  element("seen").textContent = `Row ${row + 1}, column ${column + 1}: ${what}`;
  const cross = element("cross");
  cross.hidden = false;
  cross.style.left = `${(100 * (column + 0.5)) / scene.columns}%`;
  cross.style.top = `${(100 * (row + 0.5)) / scene.rows}%`;
}

function pointAt(event) {
  if (!result || cancel) return;
  const box = element("stack").getBoundingClientRect(), { scene } = result;
  const column = Math.floor(((event.clientX - box.left) / box.width) * scene.columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * scene.rows);
  if (row >= 0 && row < scene.rows && column >= 0 && column < scene.columns) point(row, column);
}

function moveCursor(event) {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (!(event.key in moves) || !result || cancel) return;
  event.preventDefault();
  const step = event.shiftKey ? 10 : 1, { rows, columns } = result.scene;
  const [down, across] = moves[event.key].map((move) => move * step);
  const within = (value, count) => Math.max(0, Math.min(count - 1, value));
  point(within(result.cursor.row + down, rows), within(result.cursor.column + across, columns));
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = result.scene.name.replace(/\.[^.]*$/, "") + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function saveClasses() {
  const { scene, ids, model, colours } = result;
  const { classes } = model.card;
  const by = (key) => JSON.stringify(Object.fromEntries(classes.map((entry) => [entry.id, entry[key]])));
  const values = classes.at(-1).id > 255 ? ids : Uint8Array.from(ids);
  const items = { CLASS_NAMES: by("name"), CLASS_COLORS: by("color") };
  save(await writeGeoTiff({ ...scene, values, format: UNSIGNED, nodata: "0", colours: Object.fromEntries(colours), items }), "_map.tif");
}

async function saveConfidence() {
  const { scene, confidence } = result;
  save(await writeGeoTiff({ ...scene, values: confidence, format: FLOAT, nodata: "nan", items: {} }), "_map_confidence.tif");
}

async function savePng() {
  save(await result.picture.toPng(Number(element("opacity").value) / 100), "_map.png");
}

function guarded(action) {
  return () => action().catch((error) => say("run-status", messageOf(error), true));
}

function dropped(event) {
  event.preventDefault();
  document.body.classList.remove("dragged");
  const files = [...event.dataTransfer.files], isModel = (file) => /\.safetensors$/i.test(file.name);
  chooseModel(files.find(isModel));
  chooseScene(files.filter((file) => !isModel(file)));
}

element("scene-file").addEventListener("change", (event) => chooseScene([...event.target.files]));
element("model-file").addEventListener("change", (event) => chooseModel(event.target.files[0]));
// The same file may be chosen again, say after it was corrected.
for (const id of ["scene-file", "model-file"]) element(id).addEventListener("click", (event) => { event.target.value = ""; });
for (const id of ["bands-first", "bands-last"]) {
  element(id).addEventListener("change", () => {
    placeNpyBands();
    update();
  });
}
element("map").addEventListener("click", map);
element("cancel").addEventListener("click", () => cancel?.());
element("stack").addEventListener("pointermove", pointAt);
element("stack").addEventListener("pointerdown", pointAt);
element("stack").addEventListener("keydown", moveCursor);
element("opacity").addEventListener("input", (event) => { element("above").style.opacity = event.target.value / 100; });
element("save-classes").addEventListener("click", guarded(saveClasses));
element("save-confidence").addEventListener("click", guarded(saveConfidence));
element("save-picture").addEventListener("click", guarded(savePng));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragged"); });
document.addEventListener("drop", dropped);
if (typeof WebAssembly !== "object" || !WebAssembly.validate(KERNELS) || typeof DecompressionStream !== "function") {
  say("run-status", "This browser is too old: it needs WebAssembly with SIMD, and DecompressionStream.", true);
  for (const id of ["scene-file", "model-file"]) element(id).disabled = true;
}
