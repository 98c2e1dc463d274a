// Barcodes and persistence diagrams, and what is read from the zigzags.
// circle, triangle, square, diamond around a point
const SHAPES = ["m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0", "m-3.5 3l3.5 -6.5l3.5 6.5z", "m-3 -3h6v6h-6z", "m0 -4l4 4l-4 4l-4 -4z"];

/** The bars of a run: bars(sample, layer place, dimension place) -> [[birth, death], ...] or null. */
function unpackBars(run) {
  const stored = run.bars;
  if (!stored) return null;
  const text = atob(stored.values);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  const dimensions = stored.dimensions, layers = run.layers.length;
  const starts = [];
  let start = 0;
  stored.counts.forEach((count, i) => {
    starts.push(start);
    const born = stored.born_at_0.includes(dimensions[i % dimensions.length]);
    start += Math.max(0, count) * (born ? 1 : 2);
  });
  const value = (place) => view.getFloat32(4 * place, true);
  const index = (sample, layer, d) => (stored.samples.indexOf(sample) * layers + layer) * dimensions.length + d;
  return {
    dimensions,
    kept: (sample) => stored.samples.includes(sample),
    whole: (sample, layer, d) => (stored.whole || stored.counts)[index(sample, layer, d)],
    of(sample, layer, d) {
      const i = index(sample, layer, d);
      const count = stored.counts[i];
      if (count === undefined || count < 0) return null;
      const born = stored.born_at_0.includes(dimensions[d]);
      return Array.from({ length: count }, (_, n) =>
        born ? [0, value(starts[i] + n)] : [value(starts[i] + n), value(starts[i] + count + n)]);
    },
    /** The largest finite end of a layer over all samples: one scale, so that the slider shows movement. */
    reach(layer) {
      let reach = 0;
      for (const sample of stored.samples) for (let d = 0; d < dimensions.length; d++)
        for (const [birth, death] of this.of(sample, layer, d) || []) reach = Math.max(reach, birth, Number.isFinite(death) ? death : 0);
      return reach || 1;
    },
  };
}

function barcodeChart(place, title, groups, reach, unit) {
  const { figure: whole, frame, width } = figure(place, title, unit);
  const left = 34, right = 8, panel = 150, between = 24, bottom = 40;
  const height = groups.length * (panel + between) + bottom;
  const high = reach * 1.04;
  const px = (x) => left + Math.min(1, x / high) * (width - left - right);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ` + groups.map((group) => group.text).join(" ") });
  groups.forEach((group, g) => {
    const top = g * (panel + between) + 16;
    drawing.append(svg("text", { x: left, y: top - 5 }, group.text));
    drawing.append(svg("text", { x: left - 8, y: top + panel / 2, "text-anchor": "end" }, `H${group.dimension}`));
    const sorted = [...group.bars].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    const pitch = panel / Math.max(sorted.length, 12);
    const path = sorted.map(([birth, death], i) => `M${px(birth).toFixed(1)} ${(top + panel - (i + 0.5) * pitch).toFixed(1)}H${(Number.isFinite(death) ? px(death) : width - right + 6).toFixed(1)}`).join("");
    drawing.append(svg("path", { class: "line", d: path, "stroke-width": Math.min(5, Math.max(0.6, pitch * 0.72)), ...paletteColours(group.dimension) }));
  });
  const floor = height - bottom;
  for (const x of ticks(0, high, Math.max(3, Math.floor(width / 90)))) {
    drawing.append(svg("line", { class: "axis", x1: px(x), x2: px(x), y1: floor, y2: floor + 4 }));
    drawing.append(svg("text", { x: px(x), y: floor + 18, "text-anchor": "middle" }, words(x)));
  }
  drawing.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }));
  frame.append(drawing);
}

function diagramChart(place, title, groups, reach, unit) {
  const { figure: whole, frame, width } = figure(place, title, unit);
  const side = Math.min(width, 420), left = 46, right = 14, top = 26, bottom = 44;
  const high = reach * 1.04, inner = side - left - right, height = top + inner + bottom;
  const px = (x) => left + (x / high) * inner, py = (y) => top + (1 - y / high) * inner;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: births to the right, deaths upwards.` });
  for (const x of ticks(0, high, 5)) {
    drawing.append(svg("line", { class: "gridline", x1: px(x), x2: px(x), y1: py(0), y2: py(high) }), svg("line", { class: "gridline", x1: px(0), x2: px(high), y1: py(x), y2: py(x) }));
    drawing.append(svg("text", { x: px(x), y: py(0) + 18, "text-anchor": "middle" }, words(x)), svg("text", { x: left - 7, y: py(x) + 4, "text-anchor": "end" }, words(x)));
  }
  drawing.append(svg("line", { class: "axis", x1: px(0), y1: py(0), x2: px(high), y2: py(high) }));
  drawing.append(svg("line", { class: "axis", "stroke-dasharray": "5 4", x1: px(0), x2: px(high), y1: top - 14, y2: top - 14 }));
  drawing.append(svg("text", { x: px(high), y: top - 1, "text-anchor": "end" }, "never dies"));
  for (const group of groups) {
    const shape = SHAPES[group.dimension % 4];
    const path = group.bars.map(([birth, death]) => `M${px(birth).toFixed(1)} ${(Number.isFinite(death) ? py(death) : top - 14).toFixed(1)}${shape}`).join("");
    drawing.append(svg("path", { class: "hollow", d: path, ...paletteColours(group.dimension) }));
  }
  drawing.append(svg("text", { x: left, y: height - 8 }, "\u2192 birth"), svg("text", { x: px(high), y: height - 8, "text-anchor": "end" }, "\u2191 death"));
  frame.append(drawing);
  whole.append(legend(groups.map((group) => ({ name: `H${group.dimension}`, shape: SHAPES[group.dimension % 4], colours: paletteColours(group.dimension) }))));
}

/** S(i, j) of a stored zigzag, for j >= i row by row. */
function sharedFeatures(zigzag) {
  const n = zigzag.stages;
  const start = (row) => row * n - (row * (row - 1)) / 2;
  return (i, j) => zigzag.shared[start(Math.min(i, j)) + Math.abs(i - j)];
}

function zigzagCharts(similarityPlace, imagePlace, zigzag, names, word, label) {
  const n = zigzag.stages, shared = sharedFeatures(zigzag);
  gridChart(similarityPlace, {
    title: `Loops alive from ${word} i to ${word} j`, note: `as a share of the loops of ${word} j`, rows: n, columns: n, square: true, most: 48,
    share: (i, j) => (shared(j, j) > 0 ? shared(i, j) / shared(j, j) : null), rowNames: names, columnNames: names,
    rowLabel: `i: ${label}`, columnLabel: `j: ${label}`, scale: { names: scaleNames(0, 1) }, missing: "no loops",
    text: (i, j) => (shared(i, j) / shared(j, j)).toFixed(2),
    describe: (i, j) => `${word} ${names[i]} and ${word} ${names[j]}: ` + (shared(j, j) > 0
      ? `${shared(i, j)} of ${shared(j, j)} loops (${words(shared(i, j) / shared(j, j))})` : "no loops"),
  });
  const counts = new Map(zigzag.image.map(([birth, death, count]) => [birth * (n + 1) + death, count]));
  const largest = Math.max(2, ...zigzag.image.map((entry) => entry[2]));
  const shade = (count) => 0.1 + 0.9 * Math.log(count) / Math.log(largest);
  const powers = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((count) => count <= largest);
  gridChart(imagePlace, {
    title: "Births and deaths of loops", note: "effective image: bars born and dying at each " + word, rows: n, columns: n + 1, square: true, most: 48, gapBefore: n,
    share: (i, j) => (counts.has(i * (n + 1) + j) ? shade(counts.get(i * (n + 1) + j)) : undefined),
    rowNames: names, columnNames: [...names, "never"], rowLabel: `birth: ${label}`, columnLabel: `death: ${label}`,
    scale: { names: powers.map((count) => [shade(count), String(count)]) }, text: (i, j) => String(counts.get(i * (n + 1) + j)),
    describe: (i, j) => `${counts.get(i * (n + 1) + j) || 0} loops born at ${word} ${names[i]}, ` + (j === n ? "never dying" : `dying at ${word} ${names[j]}`),
  });
}
