// Line charts over samples or positions.

/**
 * chart: title, note, unit, x (positions, ascending), end (of the axis, where it goes on behind them), xLabel, names
 * (what ticks at positions are called) or none for a scale in numbers, series [{name, x (its own, else those of the
 * chart), values, errors (a band of two of them each way), colours, width, dash, dots, opacity}], fromZero, marks [{value, text}],
 * onsets [{x, text}], cursor (index or null), choose(index), describe(index), legend.
 */
function lineChart(place, chart) {
  const { figure: whole, frame, width } = figure(place, chart.title, chart.note);
  const height = 230, left = 58, right = 12, top = 8, bottom = 44;
  const all = known(chart.series.flatMap((series) => [series.values, ...bandOf(series, chart.fromZero)].flat())).concat(known((chart.marks || []).map((mark) => mark.value)));
  let low = Math.min(...all), high = Math.max(...all);
  if (chart.fromZero) low = Math.min(0, low);
  if (!(high > low)) { high = low + (Math.abs(low) || 1); }
  const scale = ticks(low, high, 5);
  const step = scale.length > 1 ? scale[1] - scale[0] : high - low;
  low = Math.min(low, Math.floor(low / step + 1e-9) * step);
  high = Math.max(high, Math.ceil(high / step - 1e-9) * step);
  const first = chart.x[0], last = chart.end === undefined ? chart.x[chart.x.length - 1] : chart.end;
  const inner = width - left - right;
  const px = (x) => left + (last > first ? ((x - first) / (last - first)) : 0.5) * inner;
  const py = (y) => top + (1 - (y - low) / (high - low)) * (height - top - bottom);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: chart.choose ? "0" : null,
    "aria-label": `${chart.title}. ${chart.xLabel}.` + (chart.choose ? " Left and right arrow keys change the step." : "") });
  const levels = ticks(low, high, 5), decimal = Math.max(...levels.map(Math.abs)) >= 0.0001;
  for (const y of levels) {
    drawing.append(svg("line", { class: "gridline", x1: left, x2: width - right, y1: py(y), y2: py(y) }));
    drawing.append(svg("text", { x: left - 7, y: py(y) + 4, "text-anchor": "end" }, decimal && Math.abs(y) < 0.0001 ? String(y).replace("-", "−") : words(y)));
  }
  drawing.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  const names = chart.names;
  const places = names
    ? thinned(chart.x.length, Math.max(2, Math.min(9, Math.floor(inner / (Math.max(...names.map((n) => n.length)) * 8 + 14))))).map((i) => [chart.x[i], names[i]])
    : ticks(first, last, Math.max(2, Math.floor(inner / 90))).map((x) => [x, words(x)]);
  for (const [x, text] of places) {
    drawing.append(svg("line", { class: "axis", x1: px(x), x2: px(x), y1: height - bottom, y2: height - bottom + 4 }));
    drawing.append(svg("text", { x: px(x), y: height - bottom + 18, "text-anchor": "middle" }, text));
  }
  drawing.append(svg("text", { x: left, y: height - 6 }, chart.xLabel));
  for (const mark of chart.marks || []) {
    drawing.append(svg("line", { class: "axis", "stroke-dasharray": "5 4", x1: left, x2: width - right, y1: py(mark.value), y2: py(mark.value) }));
    drawing.append(svg("text", { x: width - right - 6, y: py(mark.value) - 5, "text-anchor": "end" }, mark.text));
  }
  // of marks that are near each other the first one is named, with how many more there are
  let named = null;
  const below = height - bottom - ((chart.marks || []).length ? 40 : 8);
  const isHigh = (series, from, to) => (series.x || chart.x).some((at, i) => known([at, series.values[i]]).length === 2 && px(at) >= from && px(at) <= to && py(series.values[i]) < top + 22);
  const crowded = (from, to) => chart.series.some((series) => isHigh(series, from, to));
  for (const onset of [...(chart.onsets || [])].sort((one, other) => one.x - other.x)) {
    const x = px(onset.x), flip = x > left + inner / 2;
    drawing.append(svg("line", { class: "mark", x1: x, x2: x, y1: top, y2: height - bottom }));
    if (named && x - named.x < 110) named.node.textContent = `${named.text} +${++named.more}`;
    else {
      named = { x, text: onset.text, more: 0, node: svg("text", { x: x + (flip ? -5 : 5), y: crowded(flip ? x - 110 : x, flip ? x : x + 110) ? below : top + 12, "text-anchor": flip ? "end" : "start" }, onset.text) };
      drawing.append(named.node);
    }
  }
  for (const series of chart.series) drawBand(drawing, bandOf(series, chart.fromZero), series, series.x || chart.x, px, py);
  for (const series of chart.series) drawSeries(drawing, series, series.x || chart.x, px, py);
  if (chart.cursor !== null && chart.cursor !== undefined) {
    const x = px(chart.x[chart.cursor]);
    drawing.append(svg("line", { class: "cursor", x1: x, x2: x, y1: top, y2: height - bottom }));
  }
  if (chart.choose) {
    const nearest = (event) => {
      const [x] = at(drawing, event, [width, height]);
      return chart.x.reduce((best, each, i) => (Math.abs(px(each) - x) < Math.abs(px(chart.x[best]) - x) ? i : best), 0);
    };
    drawing.addEventListener("click", (event) => chart.choose(nearest(event), chart.title));
    const move = (by) => () => chart.choose(Math.min(chart.x.length - 1, Math.max(0, chart.cursor + by)), chart.title);
    keys(drawing, { ArrowLeft: move(-1), ArrowRight: move(1), Home: move(-1e9), End: move(1e9) });
  }
  frame.append(drawing);
  if (chart.legend) whole.append(legend(chart.legend));
}

/** What a series may be with other prompts: two errors below and above, not below 0 where it starts there; nothing without errors. */
function bandOf(series, fromZero) {
  if (!series.errors || !known(series.errors).length) return [];
  return [-2, 2].map((errors) => series.values.map((value, i) => { const edge = real(value) + errors * real(series.errors[i]); return Number.isFinite(edge) ? (fromZero ? Math.max(0, edge) : edge) : null; }));
}
function drawBand(drawing, [low, high], series, x, px, py) {
  if (!low) return;
  let shape = "";
  for (let from = 0; from < low.length; from++) {
    if (low[from] === null) continue;
    let to = from;
    while (to + 1 < low.length && low[to + 1] !== null) to++;
    const edge = (values, i, side) => `${(px(x[i]) + side).toFixed(1)} ${py(values[i]).toFixed(1)}`;
    const places = Array.from({ length: to - from + 1 }, (_, i) => from + i);
    // one sample alone is as wide as a dot
    const above = from === to ? [edge(high, from, -3), edge(high, from, 3)] : places.map((i) => edge(high, i, 0));
    const below = from === to ? [edge(low, from, 3), edge(low, from, -3)] : places.reverse().map((i) => edge(low, i, 0));
    shape += `M${[...above, ...below].join("L")}Z`;
    from = to;
  }
  drawing.append(svg("path", { class: "spread", d: shape, ...series.colours }, svg("title", {}, `${series.name}, 95 % over prompts`)));
}

function drawSeries(drawing, series, x, px, py) {
  let path = "", open = false, dots = "";
  const alone = (i) => !Number.isFinite(real(series.values[i - 1])) && !Number.isFinite(real(series.values[i + 1]));
  series.values.forEach((value, i) => {
    const y = real(value);
    if (!Number.isFinite(y)) { open = false; return; }
    const [a, b] = [px(x[i]).toFixed(1), py(y).toFixed(1)];
    path += `${open ? "L" : "M"}${a} ${b}`;
    open = true;
    if (series.dots || alone(i)) dots += `M${a} ${b}m-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0`;
  });
  const look = { ...series.colours, "stroke-width": series.width || 1.3, "stroke-dasharray": series.dash || null, opacity: series.opacity || null };
  drawing.append(svg("path", { class: "line", d: path, ...look }, svg("title", {}, series.name)));
  if (dots) drawing.append(svg("path", { class: "dot", d: dots, ...series.colours, opacity: series.opacity || null }));
}

/** entries: {name, colours, width, dash} as a short line, or with depth (a strip of its colours), shape (hollow, or filled), spread or fill (no number). */
function legend(entries) {
  return html("div", { class: "legend" }, ...entries.map((entry) => {
    const drawing = svg("svg", { viewBox: "0 0 36 12", "aria-hidden": "true" });
    drawing.style.width = "36px";
    if (entry.depth) {
      for (let i = 0; i < 12; i++) drawing.append(svg("rect", { class: "dot", x: i * 3, y: 2, width: 3.2, height: 8, ...depthColours(i / 11) }));
    } else if (entry.shape) {
      drawing.append(svg("path", { class: entry.filled ? "dot" : "hollow", d: `M18 6${entry.shape}`, ...entry.colours }));
    } else if (entry.spread) {
      drawing.append(svg("rect", { class: "spread", x: 4, y: 0, width: 28, height: 12, ...entry.colours }));
    } else if (entry.fill) {
      drawing.append(svg("rect", { class: "none", x: 8, y: 0, width: 20, height: 12 }));
    } else {
      drawing.append(svg("path", { class: "line", d: "M0 6H36", ...entry.colours, "stroke-width": entry.width || 2, "stroke-dasharray": entry.dash || null, opacity: entry.opacity || null }));
    }
    return html("span", {}, drawing, entry.name);
  }));
}
