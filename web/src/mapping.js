import { Problem } from "./problem.js";

const VALUES = 1 << 24; // float32 values of a strip that a worker holds
const MOST_ROWS = 64, FEWEST_ROWS = 8;

// Map a scene by workers, strip by strip; `onStrip` is called with what a worker says of each. Returns a function that cancels.
export function startMapping({ kernels, source, model, scene, picture, workers, onStrip, onEnd, onProblem }) {
  const reach = (model.card.model.patch - 1) / 2;
  const rows = rowsOfStrip(scene, model.card.bands.used.length, reach, workers);
  const strips = [];
  for (let start = 0; start < scene.rows; start += rows) strips.push({ start, stop: Math.min(scene.rows, start + rows) });
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const running = [];
  let next = 0, left = strips.length;
  const stop = () => {
    running.forEach((worker) => worker.terminate());
    URL.revokeObjectURL(address);
  };
  const fail = (message) => {
    stop();
    onProblem(message);
  };
  for (let number = 0; number < Math.min(workers, strips.length); number++) {
    const worker = new Worker(address);
    running.push(worker);
    worker.onerror = (event) => fail(`A worker failed: ${event.message || "the browser gave it too little memory"}.`);
    worker.onmessage = ({ data }) => {
      if (data.problem) return fail(data.problem);
      if (data.rows) {
        onStrip(data);
        left--;
      }
      if (next < strips.length) worker.postMessage({ rows: strips[next++] });
      else worker.terminate();
      if (left === 0) {
        stop();
        onEnd();
      }
    };
    worker.postMessage({ kernels, model, scene, picture, strip: rows });
  }
  return stop;
}

function rowsOfStrip(scene, bands, reach, workers) {
  const line = bands * scene.columns;
  if (line * (2 * reach + 1) > 8 * VALUES) {
    throw new Problem("the scene is too wide for a browser", { file: scene.name, found: `${scene.columns} columns`, remedy: "Map with Python." });
  }
  const inMemory = Math.floor(VALUES / line) - 2 * reach;
  const fairly = Math.max(FEWEST_ROWS, Math.ceil(scene.rows / (2 * workers)));
  return Math.max(1, Math.min(MOST_ROWS, inMemory, fairly));
}
