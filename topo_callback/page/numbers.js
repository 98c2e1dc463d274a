// The table of all numbers: sorted, searched, a page at a time.
const ROWS = 50;
const COLUMNS = [["step", "Step"], ["layer", "Layer"], ["measure", "Measure"], ["value", "Value"], ["error", "± over prompts"]];

function numbersTable(runs, current) {
  const state = { sort: "step", down: false, from: 0, rows: [], found: [] };
  const name = (layer) => (typeof layer === "number" ? String(layer) : layer);
  // people read six digits; the download and the hint over a number have all of them
  const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));
  const rank = (layer) => (typeof layer === "number" ? layer : -1);

  function collect() {
    const run = runs[current()];
    const every = byId("every-layer").checked;
    state.rows = [];
    for (const [measure, entry] of Object.entries(run.measures)) {
      if (!every || entry.whole) entry.median.forEach((value, sample) => {
        if (value !== null) state.rows.push({ step: run.steps[sample], layer: entry.whole ? "whole depth" : "median", measure, value, error: (entry.median_errors || [])[sample] ?? null });
      });
      if (every) for (const [layer, values] of Object.entries(entry.layers)) values.forEach((value, i) => {
        if (value !== null) state.rows.push({ step: run.steps[run.kept[i]], layer: Number(layer), measure, value, error: ((entry.errors || {})[layer] || [])[i] ?? null });
      });
    }
    search();
  }
  function search() {
    const tokens = byId("search").value.toLowerCase().replace(/\b(layer|step)\s+(\d+)/g, "$1=$2").split(/\s+/).filter(Boolean);
    const fits = (row, token) => {
      if (token.startsWith("layer=")) return name(row.layer) === token.slice(6);
      if (token.startsWith("step=")) return String(row.step) === token.slice(5);
      return row.measure.toLowerCase().includes(token) || String(row.step) === token || name(row.layer).startsWith(token);
    };
    state.found = state.rows.filter((row) => tokens.every((token) => fits(row, token)));
    sort();
  }
  function sort() {
    const sign = state.down ? -1 : 1;
    const compare = { step: (a, b) => a.step - b.step, layer: (a, b) => rank(a.layer) - rank(b.layer),
      measure: (a, b) => (a.measure < b.measure ? -1 : a.measure > b.measure ? 1 : 0), value: (a, b) => real(a.value) - real(b.value), error: (a, b) => (real(a.error) || 0) - (real(b.error) || 0) };
    state.found.sort((a, b) => sign * compare[state.sort](a, b) || compare.step(a, b) || compare.measure(a, b) || compare.layer(a, b));
    state.from = 0;
    show();
  }
  function show() {
    const shown = state.found.slice(state.from, state.from + ROWS);
    byId("table").tBodies[0].replaceChildren(...shown.map((row) => html("tr", {},
      html("td", {}, String(row.step)), html("td", {}, name(row.layer)), html("td", {}, ...row.measure.split(/(?<=[_.])/).flatMap((part) => [part, html("wbr", {})])), html("td", { class: "number", title: String(row.value) }, short(row.value)),
      html("td", { class: "error", title: row.error === null ? null : `error ${row.error}` }, row.error === null ? "" : String(Number((2 * row.error).toPrecision(2)))))));
    const end = state.from + shown.length;
    byId("rows-shown").textContent = shown.length ? `${whole(state.from + 1)}–${whole(end)} of ${whole(state.found.length)}` : "nothing found";
    byId("earlier").disabled = state.from === 0;
    byId("later").disabled = end >= state.found.length;
    byId("table").tHead.rows[0].replaceChildren(...COLUMNS.map(([column, title]) => {
      const sorted = state.sort === column;
      const button = html("button", { type: "button" }, `${title} ${sorted ? (state.down ? "▼" : "▲") : ""}`);
      button.addEventListener("click", () => {
        state.down = sorted ? !state.down : false;
        state.sort = column;
        sort();
        byId("table").tHead.rows[0].cells[COLUMNS.findIndex(([c]) => c === column)].firstChild.focus();
      });
      return html("th", { scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none" }, button);
    }));
  }
  function download() {
    const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
    const lines = ["step,layer,measure,value,error", ...state.found.map((row) => [row.step, quoted(name(row.layer)), quoted(row.measure), row.value, row.error ?? ""].join(","))];
    const link = html("a", { download: "numbers.csv" });
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  byId("every-layer").addEventListener("change", collect);
  byId("search").addEventListener("input", search);
  byId("download").addEventListener("click", download);
  byId("earlier").addEventListener("click", () => { state.from = Math.max(0, state.from - ROWS); show(); });
  byId("later").addEventListener("click", () => { state.from += ROWS; show(); });
  return collect;
}
