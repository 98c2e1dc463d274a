// Grids of cells: layers by samples, stages by stages. Cells of one colour are one path, so size does not matter.
const SHADES = 128;

/**
 * chart: title, note, rows, columns, share(row, column) -> 0..1, null (no number) or undefined (nothing to draw),
 * rowNames, columnNames, rowLabel, columnLabel, scale {low, high, unit} for the colour bar, square, most (px of a cell),
 * chosen [row, column] or null, describe(row, column), choose(row, column) or null, text(row, column) or null, gapBefore.
 */
function gridChart(place, chart) {
  const { figure: whole, frame, width } = figure(place, chart.title, chart.note);
  const left = 12 + 8 * Math.max(2, ...chart.rowNames.map((name) => name.length)), top = 20, bottom = 44;
  const bar = chart.scale ? 64 : 8;
  const gap = chart.gapBefore === undefined ? 0 : 6;
  const inner = width - left - bar;
  let cell = (inner - gap) / chart.columns;
  if (chart.most) cell = Math.min(cell, chart.most);
  const tall = chart.square ? cell : Math.min(34, Math.max(230 / chart.rows, 5));
  const height = top + tall * chart.rows + bottom;
  const cx = (column) => left + column * cell + (chart.gapBefore !== undefined && column >= chart.gapBefore ? gap : 0);
  const cy = (row) => top + (chart.rows - 1 - row) * tall;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height.toFixed(1)}`, role: "img", tabindex: "0",
    "aria-label": `${chart.title}: ${chart.rows} by ${chart.columns} cells. Arrow keys read the cells.` });
  const paths = new Map();
  let missing = false;
  for (let row = 0; row < chart.rows; row++) {
    for (let column = 0; column < chart.columns; column++) {
      const share = chart.share(row, column);
      if (share === undefined) continue;
      const shade = share === null ? "none" : Math.round(Math.min(1, Math.max(0, share)) * (SHADES - 1));
      missing = missing || share === null;
      const piece = `M${cx(column).toFixed(2)} ${cy(row).toFixed(2)}h${cell.toFixed(2)}v${tall.toFixed(2)}h-${cell.toFixed(2)}z`;
      paths.set(shade, (paths.get(shade) || "") + piece);
    }
  }
  for (const [shade, d] of paths) {
    const look = shade === "none" ? { class: "none" } : { fill: viridis(shade / (SHADES - 1)), stroke: viridis(shade / (SHADES - 1)), "stroke-width": 0.4 };
    drawing.append(svg("path", { d, "shape-rendering": "crispEdges", ...look }));
  }
  if (chart.text && tall >= 16) {
    const written = [];
    for (let row = 0; row < chart.rows; row++) for (let column = 0; column < chart.columns; column++) {
      const share = chart.share(row, column);
      if (share !== undefined && share !== null) written.push([row, column, share, String(chart.text(row, column))]);
    }
    // all of them or none: half of the numbers would look like the only ones there are
    if (cell >= 4 + 7 * Math.max(...written.map(([, , , words]) => words.length))) {
      for (const [row, column, share, words] of written) {
        drawing.append(svg("text", { x: cx(column) + cell / 2, y: cy(row) + tall / 2 + 4, "text-anchor": "middle", class: share > 0.55 ? "on-light" : "on-dark" }, words));
      }
    }
  }
  gridNames(drawing, chart, { cx, cy, cell, tall, left, height, bottom });
  if (chart.scale) colourBar(drawing, chart.scale, cx(chart.columns - 1) + cell + 14, top, tall * chart.rows);
  const marker = svg("g", {});
  drawing.append(marker);
  const readout = html("p", { class: "readout", "aria-live": "polite" });
  let place2 = chart.chosen || [0, 0];
  const show = (row, column, speak) => {
    place2 = [row, column];
    const box = { x: cx(column), y: cy(row), width: cell, height: tall };
    marker.replaceChildren(svg("rect", { class: "chosen-edge", ...box }), svg("rect", { class: "chosen", ...box }));
    if (speak) readout.textContent = chart.describe(row, column);
  };
  if (chart.chosen) show(...chart.chosen, true);
  const cellAt = (event) => {
    const [x, y] = at(drawing, event, [width, height]);
    let column = Math.floor((x - left) / cell);
    if (chart.gapBefore !== undefined && x >= cx(chart.gapBefore)) column = Math.floor((x - left - gap) / cell);
    const row = chart.rows - 1 - Math.floor((y - top) / tall);
    return row >= 0 && row < chart.rows && column >= 0 && column < chart.columns ? [row, column] : null;
  };
  drawing.addEventListener("pointermove", (event) => { const found = cellAt(event); if (found) show(...found, true); });
  drawing.addEventListener("pointerleave", () => { if (chart.chosen) show(...chart.chosen, true); });
  drawing.addEventListener("click", (event) => { const found = cellAt(event); if (found && chart.choose) chart.choose(...found); else if (found) show(...found, true); });
  const move = (up, right) => () => show(Math.min(chart.rows - 1, Math.max(0, place2[0] + up)), Math.min(chart.columns - 1, Math.max(0, place2[1] + right)), true);
  keys(drawing, { ArrowUp: move(1, 0), ArrowDown: move(-1, 0), ArrowRight: move(0, 1), ArrowLeft: move(0, -1),
    Enter: () => chart.choose && chart.choose(...place2), " ": () => chart.choose && chart.choose(...place2) });
  frame.append(drawing);
  if (missing) whole.append(legend([{ name: chart.missing || "no number", fill: true }]));
  whole.append(readout);
}

function gridNames(drawing, chart, place) {
  const { cx, cy, cell, tall, left, height, bottom } = place;
  for (const row of thinned(chart.rows, Math.max(2, Math.floor(tall * chart.rows / 18)))) {
    drawing.append(svg("text", { x: left - 6, y: cy(row) + tall / 2 + 4, "text-anchor": "end" }, chart.rowNames[row]));
  }
  const last = chart.gapBefore === undefined ? chart.columns : chart.gapBefore;
  const longest = Math.max(...chart.columnNames.slice(0, last).map((name) => name.length));
  const room = Math.max(2, Math.floor(cell * last / (longest * 8 + 12)));
  for (const column of thinned(last, Math.min(12, room))) {
    if (chart.gapBefore !== undefined && cx(last) - cx(column) < 8 + 3.5 * (longest + chart.columnNames[last].length)) continue;
    drawing.append(svg("text", { x: cx(column) + cell / 2, y: height - bottom + 16, "text-anchor": "middle" }, chart.columnNames[column]));
  }
  for (let column = last; column < chart.columns; column++) {
    drawing.append(svg("text", { x: cx(column) + cell / 2, y: height - bottom + 16, "text-anchor": "middle" }, chart.columnNames[column]));
  }
  drawing.append(svg("text", { x: left, y: height - 8 }, `\u2192 ${chart.columnLabel}`));
  drawing.append(svg("text", { x: 0, y: 11 }, `\u2191 ${chart.rowLabel}`));
}

function colourBar(drawing, scale, x, top, height) {
  const pieces = 64;
  for (let i = 0; i < pieces; i++) {
    drawing.append(svg("rect", { x, y: top + height * (1 - (i + 1) / pieces), width: 10, height: height / pieces + 0.5, fill: viridis(i / (pieces - 1)) }));
  }
  for (const [share, text] of scale.names) drawing.append(svg("text", { x: x + 14, y: top + height * (1 - share) + (share > 0.95 ? 9 : share < 0.05 ? 0 : 4) }, text));
}
/** Names of a colour bar from low to high. */
function scaleNames(low, high) {
  if (!(high > low)) return [[0, words(low)]];
  return ticks(low, high, 4).map((value) => [(value - low) / (high - low), words(value)]);
}
