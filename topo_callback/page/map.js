// The map of prompts: one layer in two dimensions, on the same axes at all samples.
const mapped = { prompt: null, trails: true, near: false, loops: false };
const TIES = 2; // of every prompt, where the neighbours of all are drawn; of the chosen one all are
const LOOP_DASHES = [null, "7 3", "2 3"];

/** The newest sample of the layer on the map that is no later than the chosen one; the first where there is none. */
function mapSample(layer) {
  const before = layer.samples.filter((sample) => sample <= chosen.sample);
  return before.length ? before.length - 1 : 0;
}
function placesAt(layer, sample) {
  const flat = layer.xy[sample], places = [];
  for (let i = 0; i < flat.length; i += 2) places.push([flat[i], flat[i + 1]]);
  return places;
}
/** What there is to read of a prompt: its text where the page has it, else its number. */
function promptName(index) {
  const text = (run().prompts || [])[index];
  return `Prompt ${index + 1}` + (text ? `: ${text}` : "");
}

/** From where to where an axis reaches: all samples, but for the furthest values, which would squeeze the rest: those
 * beyond three times the middle half (Tukey) where they are at most a twentieth, else a hundredth on each side. */
function extentOf(samples, axis) {
  const values = samples.flatMap((flat) => flat.filter((_, i) => i % 2 === axis)).sort((a, b) => a - b), count = values.length;
  const [lower, upper] = [0.25, 0.75].map((share) => values[Math.floor(share * (count - 1))]), wide = 3 * (upper - lower);
  const inside = values.filter((value) => value >= lower - wide && value <= upper + wide);
  const cut = Math.floor(count / 100);
  const [low, high] = inside.length >= 0.95 * count ? [inside[0], inside[inside.length - 1]] : [values[cut], values[count - 1 - cut]];
  const more = 0.05 * (high - low || 1);
  return [low - more, high + more];
}

function drawMap() {
  const all = run().map, layer = all && all.layers[run().layers[chosen.layer]];
  hide("map", !all);
  if (!all) return;
  hide("map-loops-choice", !Object.values(all.layers).some((each) => Object.keys(each.loops).length));
  const place = byId("map-drawing"), note = byId("map-note");
  if (!layer) {
    place.replaceChildren();
    note.textContent = `Layer ${run().layers[chosen.layer]} has a shape at no sample.`;
    byId("map-readout").textContent = "";
    return;
  }
  const now = mapSample(layer), sample = layer.samples[now], places = placesAt(layer, now), start = placesAt(layer, 0);
  const shown = Math.round(100 * layer.shown[now]);
  note.textContent = `Each dot is a prompt. The axes are the same at every step; a turn or shift of the whole cloud is taken out. ` +
    `The map shows ${shown} % of the squared distances${shown < 50 ? ": what looks near may be far" : ""}.`;
  const { figure: outer, frame, width } = figure(place, `Layer ${run().layers[chosen.layer]}, step ${stepName(sample)}`,
    sample === chosen.sample ? "" : "the newest step before the chosen one that is on the map");
  const [[left, right], [low, high]] = [0, 1].map((axis) => extentOf(layer.xy, axis));
  const pad = 14, scale = Math.min((width - 2 * pad) / (right - left || 1), (Math.min(width, 460) - 2 * pad) / (high - low || 1));
  const height = Math.round((high - low) * scale + 2 * pad);
  // a prompt that lies beyond the edge is drawn on it
  const px = (x) => (width - (right - left) * scale) / 2 + (Math.min(right, Math.max(left, x)) - left) * scale;
  const py = (y) => height - pad - (Math.min(high, Math.max(low, y)) - low) * scale;
  const isBeyond = ([x, y]) => x < left || x > right || y < low || y > high, beyond = places.filter(isBeyond).length;
  if (beyond) note.textContent += ` ${beyond} ${beyond === 1 ? "prompt lies" : "prompts lie"} beyond the edge, and ${beyond === 1 ? "is" : "are"} drawn on it, hollow.`;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", class: "map",
    "aria-label": `Map of prompts, layer ${run().layers[chosen.layer]}, step ${stepName(sample)}. Left and right arrow keys change the step, up and down the prompt, Escape lets it go.` });
  const loops = mapped.loops ? (layer.loops[sample] || []) : [];
  if (mapped.loops) note.textContent += loopsSaid(layer, sample, loops);
  const path = (from, to) => `M${px(from[0]).toFixed(1)} ${py(from[1]).toFixed(1)}L${px(to[0]).toFixed(1)} ${py(to[1]).toFixed(1)}`;
  if (mapped.near) {
    const near = layer.neighbours[now];
    let lines = "";
    near.forEach((other, i) => { if (other >= 0 && i % all.near < TIES) lines += path(places[Math.floor(i / all.near)], places[other]); });
    drawing.append(svg("path", { class: "tie", d: lines }));
  }
  if (mapped.trails && now > 0) drawing.append(svg("path", { class: "trail", d: places.map((to, i) => path(start[i], to)).join("") }));
  loops.forEach((each, i) => drawing.append(svg("path", { class: "walk", "stroke-dasharray": LOOP_DASHES[i % 3],
    d: each.walks.map((walk) => walk.map((point, p) => path(places[point], places[walk[(p + 1) % walk.length]])).join("")).join("") },
  svg("title", {}, loopName(each)))));
  // shapes tell the groups apart where colours cannot
  const size = places.length > 400 ? 0.75 : 1, radius = 3.4 * size;
  const dots = places.map(([x, y], i) => svg("path", { class: isBeyond([x, y]) ? "prompt hollow" : "prompt dot", transform: `translate(${px(x).toFixed(1)} ${py(y).toFixed(1)}) scale(${size})`, d: `M0 0${SHAPES[promptShape(i)]}`, ...promptColours(i) }));
  const reach = svg("path", { class: "reach" }), around = svg("g", {});
  drawing.append(reach, ...dots, around);
  const ring = svg("circle", { class: "ring", r: radius + 4, cx: -99, cy: -99 });
  drawing.append(ring);
  const pick = (index) => {
    mapped.prompt = places[index] ? index : null;
    if (mapped.prompt === null) {
      byId("map-readout").textContent = "";
      for (const end of ["cx", "cy"]) ring.setAttribute(end, -99);
      reach.removeAttribute("d");
      around.replaceChildren();
      return;
    }
    const others = layer.neighbours[now].slice(index * all.near, (index + 1) * all.near).filter((other) => other >= 0);
    reach.setAttribute("d", others.map((other) => path(places[index], places[other])).join(""));
    around.replaceChildren(...others.map((other) => svg("circle", { class: "near-ring", r: radius + 2.5, cx: px(places[other][0]).toFixed(1), cy: py(places[other][1]).toFixed(1) })));
    ring.setAttribute("cx", px(places[index][0]).toFixed(1));
    ring.setAttribute("cy", py(places[index][1]).toFixed(1));
    const moved = Math.hypot(places[index][0] - start[index][0], places[index][1] - start[index][1]) / all.unit;
    const group = promptGroup(index);
    byId("map-readout").textContent = `${promptName(index)}${group ? ` (${group})` : ""}. On the map it is ${words(Number(moved.toPrecision(2)))} median distances from where it began. ` +
      `Nearest in all dimensions: ${others.map((other) => nameOfNear(other)).join("; ")}.`;
  };
  const nearest = (event) => {
    const [x, y] = at(drawing, event, [width, height]);
    return places.reduce((best, each, i) => (Math.hypot(px(each[0]) - x, py(each[1]) - y) < Math.hypot(px(places[best][0]) - x, py(places[best][1]) - y) ? i : best), 0);
  };
  drawing.addEventListener("pointermove", (event) => pick(nearest(event)));
  drawing.addEventListener("click", (event) => pick(nearest(event)));
  const step = (by) => () => { setSample(Math.min(run().steps.length - 1, Math.max(0, chosen.sample + by))); byId("map-drawing").querySelector("svg").focus({ preventScroll: true }); };
  const turn = (by) => () => pick(((mapped.prompt === null ? (by > 0 ? -1 : 0) : mapped.prompt) + by + places.length) % places.length);
  keys(drawing, { ArrowLeft: step(-1), ArrowRight: step(1), Home: step(-1e9), End: step(1e9), ArrowUp: turn(-1), ArrowDown: turn(1), Escape: () => pick(null) });
  pick(mapped.prompt);
  frame.append(drawing);
  outer.append(mapLegend(loops));
}
/** What loops are, or at which steps there are any. */
function loopsSaid(layer, sample, loops) {
  if (loops.length) return " Each loop is one of many that carry its bar, and a cloud without structure has loops, too.";
  const steps = Object.keys(layer.loops).map(Number).sort((a, b) => a - b);
  return steps.length && !layer.loops[sample] ? ` Loops can be drawn at ${steps.length === 1 ? "step" : "steps"} ${steps.map(stepName).join(" and ")}, of which the distances are kept.` : " There is no loop.";
}
const loopName = (each) => `loop of ${each.walks.reduce((sum, walk) => sum + walk.length, 0)} prompts, from distance ${words(each.birth)} to ${words(each.death)}`;
/** A neighbour in a sentence: its number, and what fits of its text. */
function nameOfNear(index) {
  const text = (run().prompts || [])[index];
  return `${index + 1}` + (text ? ` (${text.length > 30 ? `${text.slice(0, 29)}…` : text})` : "");
}
const promptShape = (index) => { const groups = run().groups; return groups && groups.of[index] > 0 ? groups.of[index] % SHAPES.length : 0; };
const promptGroup = (index) => { const groups = run().groups; return groups && groups.of[index] >= 0 ? groups.names[groups.of[index]][1] : ""; };
const NO_GROUP = { "--light": "var(--muted)", "--dark": "var(--muted)" };
function promptColours(index) {
  const groups = run().groups;
  return groups && groups.of[index] < 0 ? NO_GROUP : paletteColours(groups ? groups.of[index] : 0);
}
function mapLegend(loops) {
  const groups = run().groups;
  const entries = groups ? groups.names.map(([, name], i) => ({ name, colours: paletteColours(i), shape: SHAPES[i % SHAPES.length], filled: true })) : [];
  if (groups && groups.of.some((group) => group < 0)) entries.push({ name: "no group", colours: NO_GROUP, shape: SHAPES[0], filled: true });
  if (mapped.trails) entries.push({ name: "from where it was at the first step", colours: NO_GROUP, width: 1 });
  if (mapped.near) entries.push({ name: `its ${Math.min(TIES, run().map.near)} nearest, in all dimensions`, colours: { "--light": "var(--line)", "--dark": "var(--line)" }, width: 1 });
  loops.forEach((each, i) => entries.push({ name: loopName(each), colours: { "--light": "var(--text)", "--dark": "var(--text)" }, width: 1.8, dash: LOOP_DASHES[i % 3] }));
  return legend(entries);
}
for (const name of ["trails", "near", "loops"]) {
  byId(`map-${name}`).checked = mapped[name];
  byId(`map-${name}`).addEventListener("change", () => { mapped[name] = byId(`map-${name}`).checked; drawMap(); });
}
