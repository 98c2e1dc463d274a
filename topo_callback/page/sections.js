// The sections of the page: what is chosen, and drawing it.
const runs = data.runs;
const chosen = { run: 0, sample: 0, layer: 0, axis: "step", movement: "", heat: "" };
const unpacked = runs.map(unpackBars);
const run = () => runs[chosen.run];
const stepName = (sample) => whole(run().steps[sample]);
const layerShare = (place) => (run().layers.length > 1 ? place / (run().layers.length - 1) : 0);
const hide = (id, hidden) => { byId(id).hidden = hidden; };
const setSample = (sample) => { chosen.sample = sample; byId("sample").value = String(sample); drawSample(); };
const setLayer = (place) => { chosen.layer = place; byId("layer").value = String(place); drawChosen(); };

function axisOf(name) {
  const axis = run().axes[name];
  const steps = run().steps, values = axis.values;
  const courses = run().facts.flatMap((fact) => (fact.course ? fact.course.steps : []));
  const end = name === "clock" || !courses.length ? values[values.length - 1] : Math.max(values[values.length - 1], positionOf(Math.max(...courses)));
  return { x: values, label: axis.unit, end, positionOf };
  /** Where a training step is; between two samples the clock is taken to run evenly, outside of them it is unknown. */
  function positionOf(step) {
    if (name === "step") return step;
    if (name === "progress") return steps[steps.length - 1] ? step * values[values.length - 1] / steps[steps.length - 1] : null;
    const after = steps.findIndex((each) => each >= step);
    if (after < 0 || (after === 0 && steps[0] !== step)) return null;
    if (steps[after] === step) return values[after];
    return values[after - 1] + (values[after] - values[after - 1]) * (step - steps[after - 1]) / (steps[after] - steps[after - 1]);
  }
}
/** The training steps of a fact on an axis, without those that have no place there. */
function courseOn(axis, course) {
  const x = course.steps.map(axis.positionOf);
  const placed = (values) => values.filter((_, i) => x[i] !== null);
  return { x: placed(x), values: placed(course.values) };
}
/** Numbers of a layer at every sample: those that are in the page. */
function spread(values) {
  const full = run().steps.map(() => null);
  values.forEach((value, i) => { full[run().kept[i]] = value; });
  return full;
}

/** What the charts over steps have in common; marks where something happened. */
function overSteps(axis, charts) {
  return { x: axis.x, end: axis.end, xLabel: axis.label, cursor: chosen.sample, choose: (sample, title) => { setSample(sample); focusChart(title, charts); } };
}
function drawAll(id, charts) {
  const place = byId(id);
  while (place.children.length < charts.length) place.append(html("div", {}));
  while (place.children.length > charts.length) place.lastChild.remove();
  charts.forEach((chart, i) => lineChart(place.children[i], chart));
}
/** Answers, structure and training on one axis, with the events. */
function drawCourse() {
  const axis = axisOf(chosen.axis), charts = [], said = [`Step ${stepName(chosen.sample)}`];
  const happened = run().events.map(([step, kind]) => ({ x: axis.positionOf(step), text: kind })).filter((mark) => mark.x !== null);
  const common = { ...overSteps(axis, "course-charts"), onsets: happened };
  const told = [["next_token_tv.first", "Answers moved", "share of the next token's probability that went to other tokens"], ["mutual_knn.first", "Structure kept", "share of each prompt's nearest neighbours that are those of the start"]];
  told.forEach(([name, title, note], i) => {
    const measure = run().measures[name];
    if (!measure) return;
    const look = { colours: paletteColours(i), width: 2.2 };
    const marks = name === "mutual_knn.first" ? [{ value: run().neighbours / (run().points - 1), text: "chance" }] : [];
    charts.push({ ...common, title, note, fromZero: true, marks, series: [{ name: title, values: measure.median, errors: measure.median_errors, dots: run().steps.length < 60, ...look }],
      legend: known(measure.median_errors || []).length ? [{ name: "95 % over prompts", spread: true, ...look }] : null });
    if (Number.isFinite(real(measure.median[chosen.sample]))) said.push(`${title.toLowerCase()} ${within(measure.median[chosen.sample], (measure.median_errors || [])[chosen.sample])}`);
  });
  run().facts.forEach((fact) => charts.push({ ...common, title: fact.title, fromZero: fact.name !== "loss" && !fact.logged,
    note: fact.logged ? fact.unit : !fact.course ? `${fact.unit}, newest that was logged at each sample` : `${fact.unit}, ${fact.course.wide > 1 ? `median of ${fact.course.wide} steps each` : "of every step"}`,
    series: [{ name: fact.title, colours: paletteColours(2), ...(fact.course ? { ...courseOn(axis, fact.course), width: 1.2 } : { values: fact.values, width: 1.8, dots: run().steps.length < 60 }) }] }));
  hide("course", !charts.length);
  drawAll("course-charts", charts);
  run().facts.forEach((fact) => { if (!fact.logged && fact.values[chosen.sample] !== null) said.push(`${fact.unit} ${words(fact.values[chosen.sample])}`); });
  byId("course-readout").textContent = said.join(" · ");
}

function drawMovement() {
  const axis = axisOf(chosen.axis), charts = [], common = overSteps(axis, "movement-charts");
  const measure = run().measures[chosen.movement];
  const depth = { name: `layers ${run().layers[0]} to ${run().layers[run().layers.length - 1]}`, depth: true };
  if (measure) {
    const series = layerSeries(everySample(measure.layers), everySample(measure.errors || {}));
    series.push({ name: "median", values: measure.median, errors: measure.median_errors, colours: paletteColours(6), width: 2.4, dash: "6 3" });
    const marks = chosen.movement.startsWith("mutual_knn") ? [{ value: run().neighbours / (run().points - 1), text: "chance" }] : [];
    charts.push({ ...common, title: measure.title, note: measure.unit, series, fromZero: true, marks,
      legend: [depth, { name: "median over layers", colours: paletteColours(6), width: 2.4, dash: "6 3" }, ...spreadLegend(measure.median_errors, "median, chosen layer")] });
  }
  if (Object.keys(run().velocity).length) charts.push({ ...common, title: "Velocity, H1", note: "displacement since the previous sample over what the weights' path predicts",
    series: layerSeries(run().velocity, run().velocity_errors), fromZero: true, marks: [{ value: 1, text: "as predicted" }],
    legend: [depth, ...spreadLegend(Object.values(run().velocity_errors).flat(), "chosen layer")] });
  drawAll("movement-charts", charts);
  const said = [`Step ${stepName(chosen.sample)}`];
  if (measure) said.push(`median ${within(measure.median[chosen.sample], (measure.median_errors || [])[chosen.sample])}`, `layer ${run().layers[chosen.layer]} ${within(valueOf(chosen.movement), valueOf(chosen.movement, "errors"))}`);
  const speed = run().velocity[run().layers[chosen.layer]];
  if (speed && speed[chosen.sample] !== null) said.push(`velocity ${words(speed[chosen.sample])}`);
  byId("movement-readout").textContent = said.join(" · ");
}
const everySample = (byLayer) => Object.fromEntries(Object.entries(byLayer).map(([layer, values]) => [layer, spread(values)]));
/** The chosen layer has a band: those of all layers would hide each other. */
function layerSeries(byLayer, errors) {
  return run().layers.flatMap((layer, place) => (byLayer[layer] ? [{ name: `layer ${layer}`, values: byLayer[layer], errors: place === chosen.layer ? errors[layer] : null, colours: depthColours(layerShare(place)),
    width: place === chosen.layer ? 2.6 : 1.2, dots: run().steps.length < 40 && place === chosen.layer }] : []));
}
function focusChart(title, charts = "movement-charts") {
  if (!title) return;
  const drawing = [...byId(charts).querySelectorAll("svg[tabindex]")].find((each) => each.getAttribute("aria-label").startsWith(`${title}.`));
  if (drawing) drawing.focus({ preventScroll: true });
}
function spreadLegend(errors, of) {
  return errors && known(errors).length ? [{ name: `95 % over prompts: ${of}`, spread: true, colours: paletteColours(6) }] : [];
}
function valueOf(name, held = "layers") {
  const values = (run().measures[name][held] || {})[run().layers[chosen.layer]];
  return values ? spread(values)[chosen.sample] : null;
}

function drawHeat() {
  const measure = run().measures[chosen.heat];
  hide("heat", !measure);
  if (!measure) return;
  const rows = run().layers.map((layer) => measure.layers[layer] || []);
  const errors = run().layers.map((layer) => (measure.errors || {})[layer] || []);
  const all = known(rows.flat());
  const low = measure.from_zero ? Math.min(0, ...all) : Math.min(...all), high = Math.max(...all);
  const kept = run().kept;
  const column = Math.max(0, kept.indexOf(chosen.sample));
  gridChart(byId("heat-map"), {
    title: measure.title, note: measure.unit, rows: rows.length, columns: kept.length,
    share: (row, c) => { const value = real(rows[row][c]); return Number.isFinite(value) ? (high > low ? (value - low) / (high - low) : 0.5) : null; },
    rowNames: run().layers.map(String), columnNames: kept.map(stepName), rowLabel: "layer", columnLabel: "optimizer step (one column per sample)",
    scale: { names: scaleNames(low, high) }, chosen: [chosen.layer, column],
    describe: (row, c) => {
      const status = (run().status[kept[c]] || {})[run().layers[row]];
      return `Layer ${run().layers[row]}, step ${stepName(kept[c])}: ${within(rows[row][c], errors[row][c])}${status ? ` (${status})` : ""}`;
    },
    choose: (row, c) => { chosen.sample = kept[c]; byId("sample").value = String(kept[c]); setLayer(row); byId("heat-map").querySelector("svg").focus({ preventScroll: true }); },
  });
}

function drawHomology() {
  const bars = unpacked[chosen.run];
  hide("homology", !bars);
  if (!bars) return;
  const layer = run().layers[chosen.layer], notes = [];
  const kept = bars.kept(chosen.sample);
  if (run().bars.longest !== null) notes.push(`Of each barcode the ${run().bars.longest} longest bars of a dimension are in this page.`);
  if (run().bars.samples.length < run().steps.length) notes.push(`Thinned: barcodes of ${run().bars.samples.length} of ${run().steps.length} samples are in this page.`);
  if (run().bars.rounded) notes.push("Births and deaths are rounded to float32.");
  byId("bars-note").textContent = notes.join(" ");
  const status = (run().status[chosen.sample] || {})[layer];
  const groups = bars.dimensions.map((dimension, d) => ({ dimension, bars: kept ? bars.of(chosen.sample, chosen.layer, d) : null, whole: kept ? bars.whole(chosen.sample, chosen.layer, d) : 0 }));
  const title = `layer ${layer}, step ${stepName(chosen.sample)}`;
  if (!kept || groups.some((group) => group.bars === null)) {
    byId("barcode").replaceChildren(); byId("diagram").replaceChildren();
    byId("bars-readout").textContent = `No barcode in this page for ${title}${status ? `: ${status}` : kept ? "" : ", one of the samples left out"}.`;
    return;
  }
  for (const group of groups) {
    const endless = group.bars.filter((bar) => !Number.isFinite(bar[1])).length;
    group.text = `${group.whole} bar${group.whole === 1 ? "" : "s"}` + (endless ? `, ${endless} never ${endless === 1 ? "dies" : "die"}` : "") + (group.whole > group.bars.length ? `; the longest ${group.bars.length} are drawn` : "");
  }
  const unit = `${run().metric ? `${run().metric} ` : ""}distance; one scale for all steps of the layer`;
  const reach = bars.reach(chosen.layer);
  barcodeChart(byId("barcode"), `Barcode, ${title}`, groups, reach, unit);
  diagramChart(byId("diagram"), `Persistence diagram, ${title}`, groups, reach, unit);
  const longest = groups.map((group) => group.bars.filter((bar) => Number.isFinite(bar[1])).reduce((best, bar) => (bar[1] - bar[0] > best[1] - best[0] ? bar : best), [0, 0]));
  byId("bars-readout").textContent = [`Layer ${layer}, step ${stepName(chosen.sample)}`, ...groups.map((group, d) => `H${group.dimension}: ${group.whole} bars`
    + (longest[d][1] > longest[d][0] ? `, the longest that dies from ${words(longest[d][0])} to ${words(longest[d][1])}` : ""))].join(" · ");
}

function drawDepth() {
  hide("depth", !run().depth.some((each) => each && each.stages));
  const found = run().depth[chosen.sample];
  byId("depth-note").textContent = found && found.stages ? `Zigzag of the layers' neighbour graphs at step ${stepName(chosen.sample)}, k = ${run().neighbours}.`
    : found && found.thinned ? `Thinned: the matrices of step ${stepName(chosen.sample)} are not in this page; choose another step.` : `No zigzag over depth at step ${stepName(chosen.sample)}.`;
  if (!found || !found.stages) { byId("depth-similarity").replaceChildren(); byId("depth-image").replaceChildren(); return; }
  zigzagCharts(byId("depth-similarity"), byId("depth-image"), found, found.layers.map(String), "layer", "layer");
}
function drawTime() {
  hide("time", !Object.keys(run().time).length);
  const layer = run().layers[chosen.layer], found = run().time[layer];
  byId("time-note").textContent = found && found.problem ? `Layer ${layer} has no zigzag over time: ${found.problem}.` : found ? `Zigzag of layer ${layer} over ${found.stages} samples${found.stages < run().steps.length ? ` of ${run().steps.length}, those in the window in which the layer is whole` : ""}.` : `Layer ${layer} has no zigzag over time.`;
  if (!found || found.problem) { byId("time-similarity").replaceChildren(); byId("time-image").replaceChildren(); return; }
  zigzagCharts(byId("time-similarity"), byId("time-image"), found, found.samples.map(stepName), "step", "optimizer step");
}

function drawComparison() {
  const across = data.across;
  if (!across) return;
  drawAlike(across.alike);
  if (!byId("comparison-curves")) return;
  const single = across.objectives.length === across.runs.length;
  const dashes = [null, "7 3", "2 2", "7 3 2 3"];
  const look = (i) => ({ colours: paletteColours(i), dash: dashes[i % 4] });
  const evenly = across.axis === "step";
  const places = byId("comparison-curves");
  while (places.children.length < across.panels.length) places.append(html("div", {}));
  across.panels.forEach((panel, i) => {
    const numbered = across.positions.map((_, p) => panel.values.every((row) => row[p] !== null) ? p : -1).filter((p) => p >= 0);
    const x = numbered.map((p) => (evenly ? p : across.positions[p]));
    const series = across.runs.map((each, r) => ({ name: each.name, values: numbered.map((p) => panel.values[r][p]), ...look(each.objective), width: single ? 2 : 0.9, opacity: single ? null : 0.55 }));
    if (!single) across.objectives.forEach((name, o) => series.push({ name: `mean of ${name}`, width: 2.6, ...look(o),
      values: numbered.map((p) => { const own = panel.values.filter((_, r) => across.runs[r].objective === o).map((row) => row[p]); return own.reduce((a, b) => a + b, 0) / own.length; }) }));
    const onsets = panel.onset === null ? [] : [{ x: evenly ? across.positions.indexOf(panel.onset) : panel.onset, text: "distinguishable" }];
    lineChart(places.children[i], { title: panel.title, note: `${panel.unit}, median over layers`, x, names: evenly ? numbered.map((p) => whole(across.positions[p])) : null,
      xLabel: evenly ? `${across.unit} (evenly spaced points)` : across.unit, series, onsets, fromZero: false,
      legend: [...across.objectives.map((name, o) => ({ name, ...look(o), width: 2.6 })), ...(single ? [] : [{ name: "thin: single runs", ...look(0), width: 0.9, dash: null }])] });
  });
  if (!across.distances) return;
  const rows = across.distances.rows, largest = Math.max(...known(rows.flat()));
  const codes = rows.map((_, i) => String(i + 1));
  gridChart(byId("comparison-distances"), { title: "Distance between runs, all measures", note: `runs ${rangesOf(across)}; distance 1: root mean square of all pairs`, rows: rows.length, columns: rows.length, square: true, most: 40,
    share: (i, j) => (i === j ? undefined : real(rows[i][j]) / largest), rowNames: codes, columnNames: codes, rowLabel: "run", columnLabel: "run", scale: { names: scaleNames(0, largest) },
    describe: (i, j) => `${across.distances.names[i]} and ${across.distances.names[j]}: ${words(rows[i][j])}` });
  mapChart(byId("comparison-map"), across, "Map of runs, all measures", "Map of runs: near each other where their trajectories are alike");
}
// a run has the number of its row in the matrix, which is ordered by objective
function orderOf(runs) { return runs.map((_, i) => i).sort((a, b) => runs[a].objective - runs[b].objective || a - b); }
/** Which rows of the matrix are of which objective. */
function rangesOf(across) {
  const order = across.runs.map((each) => each.objective).sort((a, b) => a - b);
  return across.objectives.map((name, o) => [name, order.indexOf(o) + 1, order.lastIndexOf(o) + 1])
    .map(([name, first, last]) => `${first === last ? first : `${first}–${last}`} ${name}`).join(", ");
}
function drawAlike(alike) {
  if (!alike || !byId("alike-cosines")) return;
  const rows = alike.rows, least = Math.min(0, ...known(rows.flat())), codes = rows.map((_, i) => String(i + 1));
  gridChart(byId("alike-cosines"), { title: "Cosine of what two runs learned", note: `runs ${rangesOf(alike)}; 1: the same direction`, rows: rows.length, columns: rows.length, square: true, most: 40,
    share: (i, j) => (i === j ? undefined : (real(rows[i][j]) - least) / (1 - least)), rowNames: codes, columnNames: codes, rowLabel: "run", columnLabel: "run", scale: { names: scaleNames(least, 1) },
    describe: (i, j) => `${alike.names[i]} and ${alike.names[j]}: ${alike.said[i][j]}` });
  if (alike.map) mapChart(byId("alike-map"), alike, "Map of runs, by what they learned", "Map of runs: near each other where they learned alike");
}
function mapChart(place, across, title, described) {
  const { figure: outer, frame, width } = figure(place, title, `runs as in the matrix; stress ${across.map.stress.toFixed(2)}, 0 is faithful`);
  const side = Math.min(width, 420), pad = 30, points = across.map.points;
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const span = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys)) || 1;
  const middle = (values) => (Math.max(...values) + Math.min(...values)) / 2;
  const px = (x) => side / 2 + (x - middle(xs)) / span * (side - 2 * pad), py = (y) => side / 2 - (y - middle(ys)) / span * (side - 2 * pad);
  const order = orderOf(across.runs), numbers = points.map((_, i) => order.indexOf(i));
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${side + 20}`, role: "img", "aria-label": described }, svg("rect", { class: "band", x: 0, y: 0, width: side, height: side }));
  points.forEach(([x, y], i) => drawing.append(svg("path", { class: "hollow", "stroke-width": 2, d: `M${px(x).toFixed(1)} ${py(y).toFixed(1)}${SHAPES[across.runs[i].objective % 4]}`, ...paletteColours(across.runs[i].objective) }, svg("title", {}, across.runs[i].name)), svg("text", { x: (px(x) + 9).toFixed(1), y: (py(y) + 4).toFixed(1) }, String(numbers[i] + 1))));
  drawing.append(svg("text", { x: 0, y: side + 16 }, `\u2192 ${(100 * across.map.explained[0]).toFixed(0)} % of the variance, \u2191 ${(100 * across.map.explained[1]).toFixed(0)} %`));
  frame.append(drawing);
  outer.append(legend(across.objectives.map((name, o) => ({ name, colours: paletteColours(o), shape: SHAPES[o % 4] }))));
}

function drawChosen() { drawSample(); drawTime(); }
function drawSample() {
  byId("sample-name").textContent = stepName(chosen.sample);
  byId("sample").setAttribute("aria-valuetext", `step ${stepName(chosen.sample)}`);
  drawCourse(); drawGroups(); drawMap(); drawDirections(); drawWords(); drawMovement(); drawHeat(); drawHomology(); drawDepth();
}
function chooseRun() {
  const entries = Object.entries(run().measures).filter(([, each]) => Object.keys(each.layers).length);
  const titled = ([name, each]) => [name, each.title === name ? name : `${each.title} (${name})`];
  const moving = entries.filter(([name]) => /^(wasserstein|sliced|bottleneck|mutual_knn|survival|cka|distance_change|rtd|srtd_lite|max_rtd_lite|nts|time_)/.test(name));
  const pick = (list, old, ...wanted) => [old, ...wanted].find((name) => list.some(([each]) => each === name)) || (list[0] || [""])[0];
  chosen.movement = pick(moving, chosen.movement, "wasserstein_h1.first", "wasserstein_h0.first");
  chosen.heat = pick(entries, chosen.heat, "wasserstein_h1.previous", "wasserstein_h1.first", "median_distance");
  options(byId("movement-measure"), moving.map(titled), chosen.movement);
  options(byId("heat-measure"), entries.map(titled), chosen.heat);
  chosen.layer = Math.min(chosen.layer, run().layers.length - 1);
  options(byId("layer"), run().layers.map((layer, i) => [String(i), String(layer)]), String(chosen.layer));
  chosen.sample = run().steps.length - 1;
  byId("sample").max = String(chosen.sample);
  byId("sample").value = String(chosen.sample);
  byId("sample").disabled = chosen.sample === 0;
  if (!run().axes[chosen.axis]) chosen.axis = "step";
  byId("axis").replaceChildren(byId("axis").querySelector("legend"), ...Object.keys(run().axes).map((name) => {
    const button = html("input", { type: "radio", name: "axis", value: name });
    button.checked = name === chosen.axis;
    button.addEventListener("change", () => { chosen.axis = name; drawCourse(); drawGroups(); drawDirections(); drawMovement(); });
    return html("label", {}, button, name);
  }));
  byId("movement-note").textContent = Object.keys(run().velocity).length ? "" : run().axes.clock
    ? "No velocity: it needs displacements over at least six intervals in which the weights moved."
    : "No velocity: the path of the weights is not recorded, and displacement is never divided by a number of steps.";
  byId("numbers-note").textContent = run().kept.length < run().steps.length
    ? `Thinned: numbers of single layers are in this page for ${run().kept.length} of ${run().steps.length} samples; medians for all.` : "";
  fillTable();
  drawChosen();
}

const fillTable = numbersTable(runs, () => chosen.run);
options(byId("run"), runs.map((each, i) => [String(i), each.name]), "0");
hide("run-choice", runs.length < 2);
byId("run").addEventListener("change", () => { chosen.run = Number(byId("run").value); chooseRun(); });
byId("layer").addEventListener("change", () => setLayer(Number(byId("layer").value)));
byId("sample").addEventListener("input", () => setSample(Number(byId("sample").value)));
byId("movement-measure").addEventListener("change", () => { chosen.movement = byId("movement-measure").value; drawMovement(); });
byId("heat-measure").addEventListener("change", () => { chosen.heat = byId("heat-measure").value; drawHeat(); });
chosen.layer = runs[0].layers.length - 1;
const redraw = () => { drawChosen(); drawComparison(); };
chooseRun();
drawComparison();
// what is folded has no width: it is drawn when it is opened
for (const each of document.querySelectorAll("details.part")) each.addEventListener("toggle", () => { if (each.open && !paper) redraw(); });
let drawnWidth = document.body.clientWidth;
window.addEventListener("resize", () => {
  if (document.body.clientWidth === drawnWidth) return;
  drawnWidth = document.body.clientWidth;
  redraw();
});
let folded = [];
const print = (on) => () => {
  if (on) folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = on;
  paper = on;
  redraw();
};
window.addEventListener("beforeprint", print(true));
window.addEventListener("afterprint", print(false));
