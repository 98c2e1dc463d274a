// Small tools: elements, numbers as words, colours, scales. Text from outside only ever becomes text nodes.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("trajectory-data").textContent);
const byId = (id) => document.getElementById(id);

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const html = (name, attributes, ...children) => put(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) => put(document.createElementNS(SVG, name), attributes, children);

/** A recorded number: null stays null, infinities come as text. */
const real = (value) => (value === null || value === undefined ? NaN : Number(value));
const known = (values) => values.map(real).filter(Number.isFinite);

/** Four significant digits; thousands apart. */
function words(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "no number";
  const number = Number(value);
  if (!Number.isFinite(number)) return number > 0 ? "never" : "−∞";
  const size = Math.abs(number);
  if (Number.isInteger(number) || size >= 10000) return whole(Math.round(number));
  if (size !== 0 && size < 0.0001) return Number(number.toPrecision(3)).toExponential().replaceAll("-", "−");
  return String(Number(number.toPrecision(4))).replace("-", "−");
}
function whole(number) {
  const text = String(Math.abs(number));
  if (text.includes("e")) return number.toPrecision(4);
  return (number < 0 ? "−" : "") + (text.length > 4 ? text.replace(/\B(?=(\d{3})+$)/g, " ") : text);
}

/** A number and what its 95 % interval over prompts reaches to each side: two errors, to two digits. */
const within = (value, error) => words(value) + (Number.isFinite(real(error)) && Number.isFinite(real(value)) ? ` ± ${words(Number((2 * real(error)).toPrecision(2)))}` : "");

const VIRIDIS = [[68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37]];
function viridis(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const mixed = VIRIDIS[low].map((part, i) => Math.round(part + (VIRIDIS[low + 1][i] - part) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}
/** One colour of the map for white paper, one for a dark screen: neither end may vanish. */
const depthColours = (share) => ({ "--light": viridis(0.86 * share), "--dark": viridis(0.22 + 0.78 * share) });
const paletteColours = (index) => ({ "--light": `var(--c${index % 7})`, "--dark": `var(--c${index % 7})` });

/** Round numbers from low to high, about so many. */
function ticks(low, high, about) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((unit) => unit * power).find((unit) => unit >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
/** At most so many of the indices 0..count-1, evenly, with the last one. */
function thinned(count, most) {
  const stride = Math.max(1, Math.ceil((count - 1) / Math.max(1, most - 1)));
  const found = [];
  for (let i = 0; i < count; i += stride) found.push(i);
  if (found[found.length - 1] !== count - 1) {
    if (count - 1 - found[found.length - 1] < 0.7 * stride && found.length > 1) found.pop();
    found.push(count - 1);
  }
  return found;
}

/** An empty figure in the place of another: caption, frame, legend. `width` is what there is to draw in. */
function figure(place, title, note) {
  const frame = html("div", { class: "frame" });
  const caption = html("figcaption", {}, title, note ? html("small", {}, note) : null);
  const whole = html("figure", {}, caption, frame);
  place.replaceChildren(whole);
  return { figure: whole, frame, width: paper ? paperWidth(place) : Math.max(260, Math.round(frame.clientWidth || 600)) };
}
/** On paper the layout is not known while drawing: two charts beside each other, or one over the whole width. */
let paper = false;
const paperWidth = (place) => (place.parentElement.matches(".pair, .panels") && place.parentElement.children.length > 1 ? 340 : 700);
/** Arrow keys and the pointer move a place within 0..count-1 over a drawing. */
function keys(node, moves) {
  node.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  });
}
function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => html("option", { value }, text)));
  if (entries.some(([value]) => value === chosen)) select.value = chosen;
}
function at(node, event, box) {
  const bounds = node.getBoundingClientRect();
  return [(event.clientX - bounds.left) * box[0] / bounds.width, (event.clientY - bounds.top) * box[1] / bounds.height];
}
