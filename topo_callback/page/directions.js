// Given directions: how far prompts moved along each, and whether the drift goes that way.
function drawDirections() {
  const place = byId("direction-charts");
  if (!place) return;
  const charts = [], common = overSteps(axisOf(chosen.axis), "direction-charts");
  const depth = { name: `layers ${run().layers[0]} to ${run().layers[run().layers.length - 1]}`, depth: true };
  const put = (title, note, measure, chance) => {
    if (!measure) return;
    const series = layerSeries(everySample(measure.layers), everySample(measure.errors || {}));
    const dashed = { name: "95 % of random directions, median over layers", colours: paletteColours(6), width: 1.6, dash: "2 3" };
    if (chance) for (const sign of [1, -1]) series.push({ ...dashed, values: chance.median.map((value) => (value === null ? null : sign * real(value))) });
    charts.push({ ...common, title, note, series, fromZero: false, marks: [], legend: [depth, ...(chance ? [dashed] : []), ...spreadLegend(Object.values(measure.errors || {}).flat(), "chosen layer")] });
  };
  for (const [name, said] of run().directions) {
    const of = (number) => run().measures[`${number}(${name}).first`];
    put(`Prompts moved along ${said} since the start`, "standard deviations of the prompts at the start", of("projection_change"));
    put(`Drift since the start towards ${said}`, "cosine of the drift of the mean with the direction", of("drift_cosine"), of("drift_cosine_by_chance"));
  }
  while (place.children.length < charts.length) place.append(html("div", {}));
  while (place.children.length > charts.length) place.lastChild.remove();
  charts.forEach((chart, i) => lineChart(place.children[i], chart));
}
