import { Problem } from "./problem.js";

const PRESETS = { default: { linear_path: "both" }, paper: { linear_path: "none" } };
const DEFAULTS = {
  orientation: "neighbours", width: 32, expansion: 2, states: 16, convolution: 4, blocks: 1, dropout: 0.1, gate: "position", block: "mamba",
};
const CHOICES = {
  orientation: ["neighbours", "pieces"], gate: ["position", "shared", "mean", "centre"], block: ["mamba", "mlp", "none"],
  linear_path: ["none", "centre", "mean", "both"],
};
const COMPANIONS = ["label propagation", "support vectors", "logistic regression"];
export const NEAR = 3; // width of the middle of a patch that label propagation sees by itself, too

// Return what decides in a model: {network, companion}, either may be null. A network is its options, whole; a companion {kind, size}.
// Every tensor's name begins with its `prefix`.
export function partsOf(card, file) {
  const { model } = card;
  const simple = COMPANIONS.find((kind) => kind.replaceAll(" ", "_") === model.name);
  if (simple) return { network: null, companion: checkedCompanion({ kind: simple, size: model.size }, "network.", file) };
  const companion = model.companion ? checkedCompanion(model.companion, "network.companion.", file) : null;
  return { network: networkOptions(card, companion ? "network.network." : "network.", file), companion };
}

function checkedCompanion({ kind, size }, prefix, file) {
  if (!COMPANIONS.includes(kind)) throw cannot(`the companion '${kind}'`, file);
  if (!(Number.isInteger(size) && size >= 1 && size <= 65535)) throw cannot(`a companion of ${size} spectra`, file);
  return { kind, size, prefix };
}

function networkOptions(card, prefix, file) {
  const { name, preset = "default", options, patch } = card.model;
  if (name !== "spectral_mamba") throw cannot(`the network '${name}'`, file);
  if (!(preset in PRESETS)) throw cannot(`the preset '${preset}'`, file);
  const bands = card.bands.used.length;
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null));
  const all = { piece: Math.min(6, bands), ...DEFAULTS, ...PRESETS[preset], ...given };
  for (const [option, value] of Object.entries(all)) {
    const known = option in CHOICES ? CHOICES[option].includes(value) : option === "dropout" || (Number.isInteger(value) && value >= (option === "blocks" ? 0 : 1));
    if (!known || !(option in DEFAULTS || option === "piece" || option === "linear_path")) throw cannot(`the option ${option} = ${value}`, file);
  }
  if (all.piece > bands) throw cannot(`the option piece = ${all.piece} of ${bands} bands`, file);
  const other = Math.ceil(bands / all.piece);
  const [tokens, tokenBands] = all.orientation === "neighbours" ? [other, all.piece] : [all.piece, other];
  const blocks = all.block === "none" ? 0 : all.blocks;
  const gate = patch === 1 ? "centre" : all.gate;
  return { ...all, blocks, gate, tokens, tokenBands, channels: all.expansion * all.width, deltaRank: Math.ceil(all.width / 16), prefix };
}

function cannot(what, file) {
  return new Problem(`this page cannot compute ${what} of the model`, { file, remedy: "Map with Python." });
}

// Return name and shape of every tensor that decides.
export function expectedTensors(card, file) {
  const { network, companion } = partsOf(card, file);
  const L = card.bands.used.length, K = card.classes.length;
  const tensors = new Map();
  const expect = (prefix, shapes) => {
    for (const [name, shape] of Object.entries(shapes)) tensors.set(prefix + name, shape);
  };
  expect("transform.", { mean: [L], inverse_sd: [L], matrix: [L, L], offset: [L] });
  if (network) expectNetwork(expect, network, L, K);
  if (companion) expectCompanion(expect, companion, card.model.patch, L, K);
  return tensors;
}

function expectNetwork(expect, network, L, K) {
  const { prefix, width: M, channels: E, states: N, convolution, deltaRank, tokens, tokenBands } = network;
  if (network.gate === "position" || network.gate === "shared") {
    expect(`${prefix}merging.`, {
      "depthwise.weight": [L, 1, 3, 3], "depthwise.bias": [L], "pointwise.weight": [L, L, 1, 1], "pointwise.bias": [L],
    });
  }
  expect(`${prefix}embedding.`, { position: [tokens, M], "projection.weight": [M, tokenBands], "projection.bias": [M] });
  for (let number = 0; number < network.blocks; number++) {
    expect(`${prefix}norms.${number}.`, { weight: [M], bias: [M] });
    expect(`${prefix}blocks.${number}.`, network.block === "mlp" ? {
      "0.weight": [E, M], "0.bias": [E], "2.weight": [M, E], "2.bias": [M],
    } : {
      "input_projection.weight": [2 * E, M], "convolution.weight": [E, 1, convolution], "convolution.bias": [E],
      "selection.weight": [deltaRank + 2 * N, E], "delta_projection.weight": [E, deltaRank], "delta_projection.bias": [E],
      A_log: [E, N], D: [E], "output_projection.weight": [M, E],
    });
  }
  expect(prefix, { "final_norm.weight": [M], "final_norm.bias": [M], "head.weight": [K, M], "head.bias": [K] });
  if (network.linear_path !== "none") expect(prefix, { "linear_path.weight": [K, L] });
}

function expectCompanion(expect, { kind, size: S, prefix }, patch, L, K) {
  if (kind === "label propagation") {
    expect(prefix, { sharpening: [L, L] });
    for (const view of patch > NEAR ? ["blunt", "sharp", "near"] : ["blunt", "sharp"]) {
      expect(`${prefix}${view}.`, { gamma: [], support: [S, L], spacing: [S], shares: [S, K] });
    }
  } else if (kind === "support vectors") {
    const pairs = (K * (K - 1)) / 2;
    expect(prefix, { mean: [L], inverse_sd: [L], gamma: [], support: [S, L], coefficients: [S, pairs], intercepts: [pairs] });
  } else {
    expect(prefix, { weight: [S, L], bias: [S] });
  }
}
