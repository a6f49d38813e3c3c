"use strict";
(() => {
  const NOTHING = 65535, LEVELS = 65534, TRAINING = 1, TEST = 2, LEAK = 4;
  const SPACE = "\u202f", LARGEST = 96;
  const DIMMED = 0.35; // opacity of the picture where only errors are shown
  const LEAST_EFFECT = 0.005; // of a block of bands on a probability: those below are not told
  const LEAST_RANGE = 0.05; // of the axis of effects, so that small ones look small
  const byId = (id) => document.getElementById(id);
  const facts = JSON.parse(byId("facts").textContent);
  const { width, height, step, why, bands } = facts;
  const classes = new Map(facts.classes.map((each) => [each.id, each]));

  // Data ----------------------------------------------------------------------

  function layer(name, Type) {
    const element = byId("layer-" + name);
    if (!element) return null;
    const text = atob(element.textContent), bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    element.remove();
    return new Type(bytes.buffer);
  }

  const ids = layer("class", Uint16Array), reference = layer("reference", Uint16Array), role = layer("role", Uint8Array);
  const confidence = layer("confidence", Uint16Array), picture = layer("picture", Uint8ClampedArray);
  const spectra = layer("spectra", Uint16Array), probabilities = layer("probabilities", Uint16Array);

  const isTest = (at) => (role[at] & TEST) !== 0;
  const isWrong = (at) => isTest(at) && ids[at] !== reference[at];
  const nameOf = (id) => (classes.get(id) || { name: "class " + id }).name;
  const colorOf = (id) => (classes.get(id) || { color: "#808080" }).color;
  const share = (level) => (level === NOTHING ? NaN : level / LEVELS);

  // Values of all bands, NaN where a band is not used or the pixel is nodata.
  function spectrumOf(at) {
    const values = new Float64Array(bands.wavelength.length).fill(NaN), used = bands.used.length;
    bands.used.forEach((number, index) => {
      const level = spectra[at * used + index];
      if (level !== NOTHING) values[number - 1] = bands.offset[index] + level * bands.scale[index];
    });
    return values;
  }

  // State ---------------------------------------------------------------------

  const hidden = new Set();
  const state = { at: 0, kept: false, opacity: 1, swipe: 0, errors: false, split: false, leaks: false, explained: why !== null };
  const view = { scale: 1, left: 0, top: 0 };
  const canvas = byId("canvas"), context = canvas.getContext("2d");

  // Pictures of the layers, a pixel each ---------------------------------------

  function painted(color) {
    const sheet = document.createElement("canvas");
    sheet.width = width;
    sheet.height = height;
    const target = sheet.getContext("2d"), image = target.createImageData(width, height);
    for (let at = 0; at < width * height; at++) {
      const found = color(at);
      if (found) image.data.set(found, 4 * at);
    }
    target.putImageData(image, 0, 0);
    return sheet;
  }

  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const rgb = new Map(facts.classes.map((each) => [each.id, [...channels(each.color), 255]]));
  const grey = [128, 128, 128, 255];
  const sheets = {};

  function paintMap() {
    sheets.map = painted((at) => {
      if (ids[at] === 0 || hidden.has(ids[at]) || (state.errors && !isWrong(at))) return null;
      return rgb.get(ids[at]) || grey;
    });
  }

  const splitColors = { [TRAINING]: [213, 94, 0, 255], [TEST]: [86, 180, 233, 220] };
  const painters = {
    picture: () => painted((at) => picture.subarray(4 * at, 4 * at + 4)),
    split: () => painted((at) => splitColors[role[at] & ~LEAK] || (ids[at] ? [128, 128, 128, 130] : null)),
    leaks: () => painted((at) => (role[at] & LEAK ? [204, 0, 160, 255] : null)),
  };
  const sheet = (name) => (sheets[name] = sheets[name] || painters[name]());

  // Drawing ---------------------------------------------------------------------

  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      drawNow();
    });
  }

  function drawNow() {
    const ratio = window.devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.left, ratio * view.top);
    context.imageSmoothingEnabled = false;
    if (picture) {
      context.globalAlpha = state.errors ? DIMMED : 1;
      context.drawImage(sheet("picture"), 0, 0);
      context.globalAlpha = 1;
    }
    context.save();
    const edge = width * state.swipe;
    context.beginPath();
    context.rect(edge, 0, width - edge, height);
    context.clip();
    context.globalAlpha = state.opacity;
    context.drawImage(sheets.map, 0, 0);
    context.globalAlpha = 1;
    if (state.split) context.drawImage(sheet("split"), 0, 0);
    if (state.leaks) context.drawImage(sheet("leaks"), 0, 0);
    context.restore();
    drawMarks();
    canvas.dataset.view = [view.scale, view.left, view.top].join(",");
  }

  function outline(x, y, size, color, thickness) {
    context.strokeStyle = color;
    context.lineWidth = thickness / view.scale;
    context.strokeRect(x, y, size, size);
  }

  function drawMarks() {
    if (state.swipe > 0) {
      const edge = width * state.swipe;
      context.fillStyle = "#000000";
      context.fillRect(edge - 1.5 / view.scale, 0, 3 / view.scale, height);
      context.fillStyle = "#ffffff";
      context.fillRect(edge - 0.5 / view.scale, 0, 1 / view.scale, height);
    }
    if (state.explained) {
      const radius = Math.min(0.22, 2.5 / view.scale);
      context.fillStyle = "#ffffff";
      context.strokeStyle = "#000000";
      context.lineWidth = 1 / view.scale;
      context.beginPath();
      why.rows.forEach((row, index) => {
        const x = why.columns[index] / step + 0.5, y = row / step + 0.5;
        context.moveTo(x + radius, y);
        context.arc(x, y, radius, 0, 2 * Math.PI);
      });
      context.fill();
      context.stroke();
    }
    const x = state.at % width, y = Math.floor(state.at / width), reach = facts.patch ? (facts.patch - 1) / 2 / step : 0;
    if (reach > 0) {
      const centre = step === 1 ? 0 : 0.5 - 0.5 / step;
      outline(x + centre - reach, y + centre - reach, 2 * reach + 1 / step, "#000000", 2.5);
      outline(x + centre - reach, y + centre - reach, 2 * reach + 1 / step, "#ffffff", 1);
    }
    outline(x, y, 1, "#000000", 4);
    outline(x, y, 1, "#ffffff", 2);
  }

  // View ------------------------------------------------------------------------

  const fitting = () => Math.min(canvas.clientWidth / width, canvas.clientHeight / height);

  function fit() {
    view.scale = fitting();
    view.left = (canvas.clientWidth - width * view.scale) / 2;
    view.top = (canvas.clientHeight - height * view.scale) / 2;
    draw();
  }

  // The map never leaves the canvas: at least a part of it stays within.
  function hold() {
    const margin = Math.min(60, canvas.clientWidth / 3);
    view.left = Math.min(canvas.clientWidth - margin, Math.max(margin - width * view.scale, view.left));
    view.top = Math.min(canvas.clientHeight - margin, Math.max(margin - height * view.scale, view.top));
    draw();
  }

  // Where the cursor's centre is on the canvas.
  const cursor = () => [view.left + ((state.at % width) + 0.5) * view.scale, view.top + (Math.floor(state.at / width) + 0.5) * view.scale];

  // Zooms about a point, by keys and buttons about the cursor, if that is seen.
  function zoom(factor, x, y) {
    if (x === undefined) {
      const size = [canvas.clientWidth, canvas.clientHeight], at = cursor();
      [x, y] = at.every((value, axis) => value >= 0 && value <= size[axis]) ? at : size.map((each) => each / 2);
    }
    const scale = Math.max(fitting() / 2, Math.min(Math.max(LARGEST, fitting()), view.scale * factor)), change = scale / view.scale;
    view.left = x - (x - view.left) * change;
    view.top = y - (y - view.top) * change;
    view.scale = scale;
    hold();
  }

  function intoView() {
    const [x, y] = cursor();
    const margin = Math.min(view.scale / 2, canvas.clientWidth / 2, canvas.clientHeight / 2);
    view.left += Math.max(0, margin - x) - Math.max(0, x - canvas.clientWidth + margin);
    view.top += Math.max(0, margin - y) - Math.max(0, y - canvas.clientHeight + margin);
    draw();
  }

  function pixelUnder(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - canvas.clientLeft - view.left) / view.scale);
    const row = Math.floor((event.clientY - box.top - canvas.clientTop - view.top) / view.scale);
    return column >= 0 && column < width && row >= 0 && row < height ? row * width + column : null;
  }

  // What is said of a pixel --------------------------------------------------------

  function make(tag, content = "", className = "") {
    const element = document.createElement(tag);
    element.textContent = content;
    if (className) element.className = className;
    return element;
  }

  function named(id) {
    const line = make("span", "", "class"), swatch = make("span", "", "swatch");
    swatch.style.background = colorOf(id);
    line.append(swatch, make("span", nameOf(id)));
    return line;
  }

  function decimals(value, digits) {
    return Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "n/a";
  }

  function short(value) {
    return Number(value.toPrecision(4)).toString().replace("-", "−");
  }

  const place = (at) => ({ row: Math.floor(at / width) * step, column: (at % width) * step });

  function coordinates(at) {
    const { row, column } = place(at), [a, b, c, d, e, f] = facts.transform, x = column + 0.5, y = row + 0.5;
    const digits = Math.max(0, Math.min(9, 2 - Math.floor(Math.log10(Math.hypot(a, d)))));
    return (a * x + b * y + c).toFixed(digits) + ", " + (d * x + e * y + f).toFixed(digits);
  }

  function roleOf(at) {
    if (role[at] & LEAK) return "test, a training pixel in its patch";
    if (isTest(at)) return "test";
    return role[at] === TRAINING ? "training" : "unused";
  }

  function show(at, aloud = false) {
    state.at = at;
    const readout = byId("readout"), { row, column } = place(at);
    readout.replaceChildren();
    const entry = (name, key, content) => {
      const line = make("div"), text = make("dd");
      text.append(content);
      text.dataset.key = key;
      line.append(make("dt", name), text);
      readout.append(line);
    };
    entry("Row, column", "place", row + ", " + column);
    if (facts.transform) entry(facts.crs && facts.crs.length < 24 ? "x, y in " + facts.crs : "x, y", "coordinates", coordinates(at));
    entry("Mapped class", "class", ids[at] ? named(ids[at]) : "nodata");
    if (confidence) entry("Confidence", "confidence", decimals(share(confidence[at]), 4));
    if (reference[at]) entry("Reference", "reference", named(reference[at]));
    entry("Split", "role", roleOf(at));
    byId("row").value = row;
    byId("column").value = column;
    byId("kept").textContent = state.kept ? "kept" : "";
    showProbabilities(at);
    if (bands) showSpectrum(at);
    if (why) showWhy(at);
    if (aloud) {
      const sure = confidence && ids[at] ? ", confidence " + decimals(share(confidence[at]), 2) : "";
      byId("said").textContent = "Row " + row + ", column " + column + ": " + (ids[at] ? nameOf(ids[at]) : "nodata") + sure;
    }
    draw();
  }

  function showProbabilities(at) {
    const target = byId("probabilities"), count = facts.probable.length;
    target.replaceChildren();
    if (!count || !probabilities || probabilities[at * count] === NOTHING) return;
    const found = facts.probable.map((id, index) => ({ id, share: share(probabilities[at * count + index]) }));
    found.sort((one, other) => other.share - one.share);
    const list = make("div", "", "shares");
    for (const each of found.slice(0, 6)) {
      const track = make("div", "", "track"), part = make("div", "", "part");
      part.style.width = 100 * each.share + "%";
      track.append(part);
      const number = make("span", decimals(100 * each.share, 1) + SPACE + "%", "amount");
      number.dataset.id = each.id;
      list.append(named(each.id), track, number);
    }
    target.append(list);
    if (count > 6) target.append(make("p", count - 6 + " more classes share the rest.", "fine"));
  }

  // Charts --------------------------------------------------------------------------

  const SVG = "http://www.w3.org/2000/svg";
  function draws(parent, tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const name in attributes) element.setAttribute(name, attributes[name]);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999);
    const found = [];
    for (let index = Math.ceil(low / size - 1e-9); index * size <= high + 1e-9 * size; index++) found.push(index * size);
    return found;
  }

  // Where bands lie on the x axis, and their order there: by wavelength if all have one, else by number.
  const byWavelength = bands && bands.wavelength.every((each) => each !== null);
  const positions = bands ? bands.wavelength.map((each, index) => (byWavelength ? each : index + 1)) : [];
  const order = positions.map((_, index) => index).sort((one, other) => positions[one] - positions[other]);
  const used = new Set(bands ? bands.used.map((number) => number - 1) : []);
  const lowest = Math.min(...positions), highest = Math.max(...positions);

  function frame(target, description, low, high, tall, unit) {
    const wide = Math.max(240, target.clientWidth), box = { left: 54, right: wide - 8, top: 6, bottom: tall - 34 };
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 " + wide + " " + tall);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", description);
    const span = highest > lowest ? highest - lowest : 1, rise = high > low ? high - low : 1;
    const x = (value) => box.left + ((value - lowest) / span) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - low) / rise) * (box.bottom - box.top);
    for (const value of ticks(low, low + rise, 4)) {
      draws(picture, "line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) });
      draws(picture, "text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value));
    }
    for (const value of ticks(lowest, lowest + span, wide / 90))
      draws(picture, "text", { x: x(value), y: box.bottom + 15, "text-anchor": "middle" }, short(value));
    draws(picture, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
    draws(picture, "text", { x: (box.left + box.right) / 2, y: tall - 4, "text-anchor": "middle" }, unit);
    target.replaceChildren(picture);
    return { picture, x, y };
  }

  function path(values, x, y) {
    let text = "", down = false;
    for (const index of order) {
      const value = values[index];
      if (value === null || !Number.isFinite(value)) down = false;
      else {
        text += (down ? "L" : "M") + x(positions[index]).toFixed(1) + "," + y(value).toFixed(1) + (down ? "" : "h0");
        down = true;
      }
    }
    return text;
  }

  // The area between two curves, a closed piece for each run of bands.
  function area(below, above, x, y) {
    let text = "", run = [];
    const close = () => {
      const point = (values) => (index) => x(positions[index]).toFixed(1) + "," + y(values[index]).toFixed(1);
      if (run.length > 1) text += "M" + [...run.map(point(above)), ...run.slice().reverse().map(point(below))].join("L") + "Z";
      run = [];
    };
    for (const index of order) {
      if (used.has(index) && Number.isFinite(below[index])) run.push(index);
      else close();
    }
    close();
    return text;
  }

  const unit = byWavelength ? "wavelength (nm)" : "band number";
  const pairOf = (id) => {
    const found = facts.means[id];
    return found && found.mean.length === positions.length && found.sd.length === positions.length ? found : null;
  };
  const shifted = (pair, sign) => pair.mean.map((value, index) => (value === null || pair.sd[index] === null ? NaN : value + sign * pair.sd[index]));
  const finite = (values) => Array.from(values).filter((value) => value !== null && Number.isFinite(value));

  // The axis holds all classes' means, so that it stands still from pixel to pixel, and grows for a pixel beyond them.
  const common = Object.keys(facts.means).flatMap((id) => {
    const pair = pairOf(id);
    return pair ? [...finite(shifted(pair, -1)), ...finite(shifted(pair, 1))] : [];
  });
  const range = [Math.min(...common), Math.max(...common)];

  function showSpectrum(at) {
    const values = spectrumOf(at), there = finite(values), target = byId("spectrum"), pair = pairOf(ids[at]);
    byId("values").textContent = "band,wavelength (nm),value\n" + Array.from(values)
      .map((value, index) => [index + 1, bands.wavelength[index] === null ? "" : bands.wavelength[index], Number.isFinite(value) ? Number(value.toPrecision(7)) : ""].join(","))
      .join("\n");
    byId("mean-key").replaceChildren(...(pair ? ["mean ± sd of the training pixels: ", named(ids[at])] : []));
    if (!there.length) {
      target.replaceChildren(make("p", "The pixel has no values.", "fine"));
      return;
    }
    const low = Math.min(range[0], ...there), high = Math.max(range[1], ...there);
    const description = "Spectrum of the pixel over " + there.length + " bands, from " + short(Math.min(...there)) + " to " + short(Math.max(...there)) + ".";
    const { picture, x, y } = frame(target, description, low, high, 230, unit);
    if (pair) {
      draws(picture, "path", { class: "spread", d: area(shifted(pair, -1), shifted(pair, 1), x, y) }).style.fill = colorOf(ids[at]);
      draws(picture, "path", { class: "casing", d: path(pair.mean, x, y) });
      draws(picture, "path", { class: "mean", d: path(pair.mean, x, y) }).style.stroke = colorOf(ids[at]);
    }
    draws(picture, "path", { class: "line", d: path(values, x, y) });
  }

  // Why ---------------------------------------------------------------------------

  function nearestWhy(at) {
    const { row, column } = place(at);
    let best = 0, least = Infinity;
    why.rows.forEach((other, index) => {
      const apart = Math.hypot(other - row, why.columns[index] - column);
      if (apart < least) [best, least] = [index, apart];
    });
    return { index: best, apart: least };
  }

  function whyNear(at) {
    const { index } = nearestWhy(at);
    return [why.rows[index], why.columns[index]];
  }

  function rangeOf(block) {
    const [first, last] = [why.first[block], why.last[block]];
    const between = first === last ? "" + first : first + "–" + last;
    if (!byWavelength) return "band" + (first === last ? " " : "s ") + between;
    const [one, other] = extentOf(block).map(Math.round);
    return (one === other ? one : one + "–" + other) + SPACE + "nm";
  }

  // Lowest and highest position of a block: where detectors overlap, bands by number are not ascending.
  function extentOf(block) {
    const within = positions.slice(why.first[block] - 1, why.last[block]);
    return [Math.min(...within), Math.max(...within)];
  }

  function listed(blocks, effects) {
    return blocks.map((block) => rangeOf(block) + " (" + (effects[block] > 0 ? "+" : "") + decimals(effects[block], 2) + ")").join(", ");
  }

  function showWhy(at) {
    const { index, apart } = nearestWhy(at), effects = why.effects[index], id = why.classes[index];
    const where = "row " + why.rows[index] + ", column " + why.columns[index];
    byId("why-place").textContent = apart === 0
      ? "Of this pixel, mapped as " + nameOf(id) + "."
      : "Of the nearest pixel with a why, " + where + ", " + short(apart) + " pixels away, mapped as " + nameOf(id) + ".";
    byId("nearest").hidden = apart === 0;
    const ranked = effects.map((_, block) => block).sort((one, other) => effects[other] - effects[one]);
    const strongest = ranked.filter((block) => effects[block] >= LEAST_EFFECT).slice(0, 3);
    const weakest = ranked.reverse().filter((block) => effects[block] <= -LEAST_EFFECT).slice(0, 3);
    const parts = [];
    if (strongest.length) parts.push("Most for it: " + listed(strongest, effects) + ".");
    if (weakest.length) parts.push("Most against it: " + listed(weakest, effects) + ".");
    byId("why-bands").textContent = parts.join(" ") || "No block of bands alone moves the probability by 0.005 or more.";
    if (bands) showEffects(effects, parts.join(" "));
    if (byId("gate")) showGate(why.gates[index]);
  }

  function showEffects(effects, description) {
    const low = Math.min(-LEAST_RANGE, ...effects), high = Math.max(LEAST_RANGE, ...effects);
    const { picture, x, y } = frame(byId("effects"), "Effect of each block of bands. " + description, low, high, 170, unit);
    effects.forEach((effect, block) => {
      const [left, right] = extentOf(block).map(x);
      draws(picture, "rect", { class: effect >= 0 ? "for" : "against", x: left, width: Math.max(2, right - left), y: Math.min(y(effect), y(0)), height: Math.abs(y(effect) - y(0)) });
    });
    draws(picture, "line", { class: "axis", x1: x(lowest), x2: x(highest), y1: y(0), y2: y(0) });
  }

  function showGate(gates) {
    const patch = why.patch, low = Math.min(...gates), high = Math.max(...gates), size = 20;
    const picture = document.createElementNS(SVG, "svg");
    picture.setAttribute("viewBox", "0 0 " + patch * size + " " + patch * size);
    picture.setAttribute("role", "img");
    gates.forEach((gate, at) => {
      const cell = { class: "cell", x: (at % patch) * size, y: Math.floor(at / patch) * size, width: size, height: size };
      const drawn = draws(picture, "rect", { ...cell, "fill-opacity": high > low ? (0.08 + (0.92 * (gate - low)) / (high - low)).toFixed(3) : 0.5 });
      draws(drawn, "title", {}, decimals(gate, 3));
    });
    const centre = (patch - 1) / 2;
    draws(picture, "rect", { class: "centre", x: centre * size, y: centre * size, width: size, height: size });
    const text = "Mean gate of the bands, from " + decimals(low, 3) + " (faint) to " + decimals(high, 3) + " (strong), " + decimals(gates[centre * patch + centre], 3)
      + " at the outlined centre. A gate of 0.5 everywhere would make the mean of the patch. It is of the network alone.";
    picture.setAttribute("aria-label", text);
    byId("gate").replaceChildren(picture);
    byId("gate-range").textContent = text;
  }

  // Controls ------------------------------------------------------------------------

  const percent = (value) => Math.round(100 * value) + SPACE + "%";

  function setOpacity(value) {
    state.opacity = value;
    byId("opacity").value = 100 * value;
    byId("opacity-value").textContent = percent(value);
    draw();
  }

  function setErrors(on) {
    state.errors = on;
    byId("errors").setAttribute("aria-pressed", on);
    paintMap();
    draw();
  }

  function setOverlay(name, on) {
    state[name] = on;
    byId(name).checked = on;
    draw();
  }

  function keep(at) {
    state.kept = true;
    show(at, true);
  }

  function release() {
    state.kept = false;
    show(state.at);
  }

  function move(columns, rows) {
    const column = Math.max(0, Math.min(width - 1, (state.at % width) + columns));
    const row = Math.max(0, Math.min(height - 1, Math.floor(state.at / width) + rows));
    keep(row * width + column);
    intoView();
  }

  function goTo(row, column) {
    const at = [row, column].map((value, axis) => Math.max(0, Math.min((axis ? width : height) - 1, Math.round(value / step) || 0)));
    keep(at[0] * width + at[1]);
    intoView();
  }

  function goToWhy() {
    if (why) goTo(...whyNear(state.at));
  }

  const OPACITIES = [1, 0.5, 0];
  const keys = {
    ArrowLeft: (event) => move(event.shiftKey ? -10 : -1, 0),
    ArrowRight: (event) => move(event.shiftKey ? 10 : 1, 0),
    ArrowUp: (event) => move(0, event.shiftKey ? -10 : -1),
    ArrowDown: (event) => move(0, event.shiftKey ? 10 : 1),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: fit,
    o: () => setOpacity(OPACITIES[(OPACITIES.findIndex((each) => each <= state.opacity) + 1) % 3]),
    e: () => setErrors(!state.errors),
    l: () => setOverlay("leaks", !state.leaks),
    s: () => setOverlay("split", !state.split),
    w: goToWhy,
    Escape: release,
  };
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event);
  });

  // Pointers: one moves the cursor or drags, two zoom.
  const pointers = new Map();
  let dragged = false;
  const centreOf = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const spreadOf = (points) => (points.length < 2 ? 0 : Math.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]));
  const within = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!pointers.size) dragged = false;
    pointers.set(event.pointerId, within(event));
    if (pointers.size > 1) dragged = true;
    canvas.setPointerCapture(event.pointerId);
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) {
      const under = pixelUnder(event);
      if (under !== null && under !== state.at && !state.kept) show(under);
      return;
    }
    const now = within(event);
    if (!dragged && Math.hypot(now[0] - before[0], now[1] - before[1]) < 5) return;
    dragged = true;
    const earlier = [...pointers.values()];
    pointers.set(event.pointerId, now);
    const later = [...pointers.values()], [from, to] = [centreOf(earlier), centreOf(later)];
    view.left += to[0] - from[0];
    view.top += to[1] - from[1];
    if (spreadOf(earlier) > 0) zoom(spreadOf(later) / spreadOf(earlier), ...to);
    else hold();
  });

  canvas.addEventListener("pointerup", (event) => {
    const under = pixelUnder(event);
    pointers.delete(event.pointerId);
    if (dragged || under === null) return;
    if (state.kept && under === state.at) release();
    else keep(under);
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), ...within(event));
  }, { passive: false });

  byId("closer").addEventListener("click", () => zoom(1.5));
  byId("farther").addEventListener("click", () => zoom(1 / 1.5));
  byId("whole").addEventListener("click", fit);
  byId("errors").addEventListener("click", () => setErrors(!state.errors));
  byId("opacity").addEventListener("input", (event) => setOpacity(event.target.value / 100));
  for (const name of ["split", "leaks", "explained"])
    if (byId(name)) byId(name).addEventListener("change", (event) => setOverlay(name, event.target.checked));
  if (byId("swipe"))
    byId("swipe").addEventListener("input", (event) => {
      state.swipe = event.target.value / 100;
      byId("swipe-value").textContent = percent(state.swipe);
      draw();
    });
  if (byId("nearest")) byId("nearest").addEventListener("click", goToWhy);
  byId("row").max = facts.rows - 1;
  byId("column").max = facts.columns - 1;
  byId("goto").addEventListener("submit", (event) => {
    event.preventDefault();
    goTo(Number(byId("row").value), Number(byId("column").value));
  });

  const toggles = [...document.querySelectorAll(".toggle")];
  function setClasses(chosen, on) {
    for (const toggle of chosen) {
      toggle.checked = on;
      hidden[on ? "delete" : "add"](Number(toggle.dataset.id));
    }
    paintMap();
    draw();
  }
  for (const toggle of toggles) toggle.addEventListener("change", () => setClasses([toggle], toggle.checked));
  byId("all").addEventListener("click", () => setClasses(toggles, true));
  byId("none").addEventListener("click", () => setClasses(toggles, false));

  const theme = byId("theme"), dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const tellTheme = () => theme.setAttribute("aria-pressed", isDark());
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    tellTheme();
  });
  dark.addEventListener("change", tellTheme);

  for (const swatch of document.querySelectorAll("[data-color]")) swatch.style.background = swatch.dataset.color;
  tellTheme();
  paintMap();
  fit();
  const centre = Math.floor(height / 2) * width + Math.floor(width / 2), begin = why ? whyNear(centre) : null;
  show(begin ? (begin[0] / step) * width + begin[1] / step : centre);
  let seen = [canvas.clientWidth, canvas.clientHeight].join();
  new ResizeObserver(() => {
    const now = [canvas.clientWidth, canvas.clientHeight].join();
    if (now === seen) return;
    seen = now;
    fit();
    show(state.at);
  }).observe(canvas);
  requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); });
})();
