// Groups of prompts: a chart for each pair, and what each group did.
function drawGroups() {
  const place = byId("group-charts");
  if (!place) return;
  const groups = run().groups, charts = [];
  const axis = axisOf(chosen.axis);
  const common = overSteps(axis, "group-charts");
  const depth = { name: `layers ${run().layers[0]} to ${run().layers[run().layers.length - 1]}`, depth: true };
  for (const [key, said] of groups ? groups.pairs : []) {
    const measure = run().measures[`separation[${key}]`], chance = run().measures[`separation_by_chance[${key}]`];
    if (!measure) continue;
    const dashed = { name: "95 % of random labels, median over layers", colours: paletteColours(6), width: 1.6, dash: "2 3" };
    const series = layerSeries(everySample(measure.layers), everySample(measure.errors || {}));
    if (chance) series.push({ ...dashed, values: chance.median });
    charts.push({ ...common, title: `How far ${said} are apart`, note: "held out, in standard deviations inside the groups", series, fromZero: false, marks: [],
      legend: [depth, ...(chance ? [dashed] : []), ...spreadLegend(Object.values(measure.errors || {}).flat(), "chosen layer")] });
  }
  const each = (title, note, held) => {
    const series = (groups ? groups.names : []).flatMap(([name, said], i) => {
      const measure = run().measures[held(name)];
      return measure ? [{ name: said, values: measure.median, errors: measure.whole ? measure.median_errors : null, colours: paletteColours(i), width: 2, dash: [null, "7 3", "2 2"][i % 3] }] : [];
    });
    if (series.length) charts.push({ ...common, title, note, series, fromZero: true, legend: [...series, ...spreadLegend(series.flatMap((one) => one.errors || []), "each group")] });
  };
  each("Answers of each group moved since the start", "total variation: share of the probability of next tokens", (name) => `next_token_tv[${name}].first`);
  each("Mean of each group moved since the start", "median distances, median over layers", (name) => `drift[${name}].first`);
  while (place.children.length < charts.length) place.append(html("div", {}));
  while (place.children.length > charts.length) place.lastChild.remove();
  charts.forEach((chart, i) => lineChart(place.children[i], chart));
}
