// Drift in words: what the turn of a layer's mean since the start adds to tokens, at the chosen step and over the run.
let wordSet = 0;
function drawWords() {
  if (!byId("words-note")) return;
  const held = run().words, sets = byId("words-sets");
  wordSet = held ? Math.min(wordSet, held.sets.length - 1) : 0;
  sets.hidden = !held || held.sets.length < 2;
  if (held && sets.childElementCount !== 1) {
    const select = html("select", {});
    sets.replaceChildren(html("label", {}, "Prompts ", select));
    select.addEventListener("change", () => { wordSet = Number(select.value); drawWords(); });
  }
  if (held) options(sets.querySelector("select"), held.sets.map((name, i) => [String(i), name]), String(wordSet));
  const layer = String(run().layers[chosen.layer]);
  const places = held ? Object.keys(held.samples).map(Number) : [];
  const at = places.filter((place) => place <= chosen.sample).pop();
  const said = at === undefined ? null : (held.samples[at][layer] || {})[wordSet];
  for (const id of ["words-up", "words-down", "words-course"]) byId(id).replaceChildren();
  if (!said) {
    byId("words-note").textContent = held ? `Layer ${layer} has no drift in words at step ${stepName(chosen.sample)}: the run has just begun, or its mean has not turned.` : "No drift in words in this run.";
    return;
  }
  const [angle, up, down] = said;
  byId("words-note").textContent = `Layer ${layer}, step ${stepName(at)}: the mean of ${held.sets[wordSet]} has turned by ${words(Number(angle.toPrecision(2)))}° since step ${whole(held.since)}. `
    + "Read through the model’s own norm and head, the turn adds this to the logits of tokens, in nats against the average token; ± is the 95 % interval over prompts. ␣ is a space.";
  const most = Math.max(...[...up, ...down].map((word) => Math.abs(word[1]) + 2 * (word[2] || 0)), 1e-9);
  wordList(byId("words-up"), "Likelier", up, most, paletteColours(0));
  wordList(byId("words-down"), "Less likely", down, most, paletteColours(1));
  const row = (place) => {
    const there = (held.samples[place][layer] || {})[wordSet];
    return html("tr", place === at ? { class: "now" } : {}, html("th", { scope: "row" }, stepName(place)),
      html("td", {}, ...(there ? there[1].slice(0, 6).map((word) => html("span", { class: within2(word) ? "word" : "word faint" }, word[0])) : ["-"])));
  };
  byId("words-course").append(html("p", { class: "caption" }, `Likelier over the run, layer ${layer}, the first six; pale: within the error`),
    html("div", { class: "scroll" }, html("table", { class: "words" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "step"), html("th", { scope: "col" }, "tokens"))), html("tbody", {}, ...places.map(row)))));
}
const within2 = ([, score, error]) => error === null || Math.abs(score) > 2 * error;

function wordList(place, title, list, most, colours) {
  const { frame, width } = figure(place, title, "");
  const row = 22, name = Math.min(170, Math.round(width * 0.36)), end = 92;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${row * list.length + 4}`, role: "img",
    "aria-label": `${title}: ${list.map(([text, score, error]) => `${text} ${within(score, error)}`).join(", ")}` });
  const px = (value) => name + (Math.abs(value) / most) * (width - name - end);
  list.forEach(([text, score, error], i) => {
    const y = i * row + 3;
    drawing.append(svg("text", { class: "token", x: name - 8, y: y + 13, "text-anchor": "end" }, text));
    drawing.append(svg("rect", { class: "dot", x: name, y: y + 3, width: Math.max(1, px(score) - name), height: row - 9, ...colours, opacity: within2([text, score, error]) ? null : 0.35 }));
    if (error !== null) drawing.append(svg("line", { class: "axis", x1: px(Math.max(0, Math.abs(score) - 2 * error)), x2: px(Math.abs(score) + 2 * error), y1: y + 8.5, y2: y + 8.5 }));
    drawing.append(svg("text", { x: width, y: y + 13, "text-anchor": "end" }, wordScore(score, error)));
  });
  frame.append(drawing);
}
/** As many decimals as leave the interval one digit; two digits of a score without one. */
function wordScore(score, error) {
  const sign = score > 0 ? "+" : "−", size = Math.abs(score);
  if (!error) return sign + words(Number(size.toPrecision(2)));
  const digits = Math.min(3, Math.max(0, -Math.floor(Math.log10(2 * error))));
  return `${sign}${size.toFixed(digits)} ± ${(2 * error).toFixed(digits)}`;
}
