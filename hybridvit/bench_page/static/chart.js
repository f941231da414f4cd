// Accuracy over latency with intervals and the Pareto front; and bars of latencies where no accuracy is known.

import { msInWords, shortNames, wayOf } from "./result.js";

const SPACE = "http://www.w3.org/2000/svg";
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]; // Okabe and Ito's
const MARGIN = { left: 46, right: 18, top: 26, bottom: 44 };
const HEIGHT = 340;
const BAR = { row: 46, height: 12, left: 2, right: 64 };
const LETTER_PX = 6.6; // of a label, on average
const LINE_PX = 15;

/** A colour for each model, the same in chart and table. @param {object[]} records rows of a result */
export function coloursOf(records) {
  const models = [...new Set(records.map((each) => each.model))].sort();
  return new Map(models.map((model, place) => [model, COLOURS[place % COLOURS.length]]));
}

/** Those that no other beats in both accuracy and time, the fastest first. */
export function paretoFront(records) {
  const ordered = [...records].sort((one, other) => one.median_ms - other.median_ms || other.top1 - one.top1);
  let best = -Infinity;
  return ordered.filter((each) => each.top1 > best && ((best = each.top1), true));
}

/** Accuracy (y) over median milliseconds (x, logarithmic). */
export function drawTradeoff(svg, records, colours) {
  const width = begin(svg, HEIGHT, "Accuracy over latency. The table below says the same.");
  const x = logScale(records, width);
  const y = accuracyScale(records);
  drawAxes(svg, { x, y, width });
  const front = paretoFront(records);
  svg.append(shape("path", { class: "front", d: steps(front, x, y) }));
  const labels = [];
  const short = shortNames(records.map((each) => each.model));
  for (const group of byModel(records)) {
    const [fastest, ...slower] = group;
    if (slower.length) {
      const ends = { x1: x.at(fastest.median_ms), x2: x.at(slower.at(-1).median_ms) };
      svg.append(shape("line", { class: "same", ...ends, y1: y.at(fastest.top1), y2: y.at(fastest.top1) }));
    }
    for (const each of slower) svg.append(mark(each, { x, y, colour: colours.get(each.model), isFastest: false }));
    svg.append(mark(fastest, { x, y, colour: colours.get(fastest.model), isFastest: true }));
    labels.push({ text: short.get(fastest.model), x: x.at(fastest.median_ms), y: y.at(fastest.top1), isOnFront: front.includes(fastest) });
  }
  drawLabels(svg, labels, { width, marks: records.map((each) => ({ x: x.at(each.median_ms), y: y.at(each.top1) })) });
}

/** Median milliseconds as bars from 0, the fastest first, with intervals. */
export function drawBars(svg, records, colours) {
  const ordered = [...records].sort((one, other) => one.median_ms - other.median_ms);
  const short = shortNames(records.map((each) => each.model));
  const width = begin(svg, ordered.length * BAR.row + 4, "Latency of each candidate. The table below says the same.");
  const longest = Math.max(...ordered.map((each) => each.high_ms));
  const at = (value) => BAR.left + (value / longest) * (width - BAR.left - BAR.right);
  for (const [place, each] of ordered.entries()) {
    const top = place * BAR.row + 22;
    const middle = top + BAR.height / 2;
    svg.append(words(`${short.get(each.model)}, ${wayOf(each)}`, { x: BAR.left, y: top - 7, class: "label" }));
    const sides = { x: BAR.left, y: top, width: Math.max(2, at(each.median_ms) - BAR.left), height: BAR.height, rx: 3 };
    svg.append(shape("rect", { ...sides, fill: colours.get(each.model), "fill-opacity": place ? 0.55 : 1 }));
    svg.append(shape("line", { class: "interval", x1: at(each.low_ms), x2: at(each.high_ms), y1: middle, y2: middle }));
    const end = Math.max(at(each.high_ms), at(each.median_ms)) + 7;
    svg.append(words(`${msInWords(each.median_ms)} ms`, { x: end, y: middle + 4, class: "value" }));
  }
}

function begin(svg, height, title) {
  const width = Math.max(280, svg.parentElement.clientWidth);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", title);
  return width;
}

function byModel(records) {
  const groups = new Map();
  for (const each of [...records].sort((one, other) => one.median_ms - other.median_ms)) {
    groups.set(each.model, [...(groups.get(each.model) ?? []), each]);
  }
  return groups.values();
}

function logScale(records, width) {
  const low = Math.min(...records.map((each) => each.low_ms)) / 1.35;
  const high = Math.max(...records.map((each) => each.high_ms)) * 1.35;
  const span = Math.log(high / low);
  const inner = width - MARGIN.left - MARGIN.right;
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    ticks.push(...[1, 2, 5].map((digit) => digit * 10 ** power).filter((tick) => tick >= low && tick <= high));
  }
  return { at: (value) => MARGIN.left + (Math.log(value / low) / span) * inner, ticks };
}

function accuracyScale(records) {
  const values = records.map((each) => each.top1);
  const spare = Math.max(0.8, (Math.max(...values) - Math.min(...values)) * 0.18);
  const low = Math.min(...values) - spare;
  const high = Math.min(100, Math.max(...values) + spare);
  const inner = HEIGHT - MARGIN.top - MARGIN.bottom;
  const step = [0.5, 1, 2, 5, 10, 20].find((each) => (high - low) / each <= 6) ?? 25;
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step) ticks.push(tick);
  return { at: (value) => HEIGHT - MARGIN.bottom - ((value - low) / (high - low)) * inner, ticks };
}

function drawAxes(svg, { x, y, width }) {
  const bottom = HEIGHT - MARGIN.bottom;
  for (const tick of x.ticks) {
    svg.append(shape("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: MARGIN.top, y2: bottom }));
    svg.append(words(String(Number(tick.toPrecision(1))), { x: x.at(tick), y: bottom + 17, class: "tick middle" }));
  }
  for (const tick of y.ticks) {
    svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y.at(tick), y2: y.at(tick) }));
    svg.append(words(String(Number(tick.toFixed(1))), { x: MARGIN.left - 8, y: y.at(tick) + 4, class: "tick end" }));
  }
  svg.append(words("milliseconds an image", { x: width - MARGIN.right, y: HEIGHT - 8, class: "axis end" }));
  svg.append(words("top-1 %", { x: 2, y: 14, class: "axis" }));
}

function steps(front, x, y) {
  return front
    .map((each, place) => {
      const [across, up] = [x.at(each.median_ms), y.at(each.top1)];
      return place ? `H${across}V${up}` : `M${across} ${up}`;
    })
    .join("");
}

/** A circle for processors, a diamond for WebGPU; hollow where the model has a faster way. */
function mark(row, { x, y, colour, isFastest }) {
  const group = shape("g", { stroke: colour, fill: colour });
  const [across, up] = [x.at(row.median_ms), y.at(row.top1)];
  group.append(shape("line", { class: "whisker", x1: x.at(row.low_ms), x2: x.at(row.high_ms), y1: up, y2: up }));
  const look = { class: isFastest ? "mark" : "mark hollow" };
  const size = isFastest ? 6 : 4.5;
  const corners = `M${across} ${up - size - 1}l${size + 1} ${size + 1}l${-size - 1} ${size + 1}l${-size - 1} ${-size - 1}z`;
  const round = { cx: across, cy: up, r: size };
  group.append(row.device === "webgpu" ? shape("path", { ...look, d: corners }) : shape("circle", { ...look, ...round }));
  const title = document.createElementNS(SPACE, "title");
  title.textContent = `${row.model}, ${wayOf(row)}: ${msInWords(row.median_ms)} ms, ${row.top1} %`;
  group.append(title);
  return group;
}

/** Names beside their marks, each where it covers no other name and no mark. */
function drawLabels(svg, labels, { width, marks }) {
  const taken = marks.map((each) => ({ left: each.x - 6, right: each.x + 6, top: each.y - 5, bottom: each.y + 5 }));
  for (const label of labels.sort((one, other) => one.y - other.y)) {
    const places = [...placesFor(label, width)];
    const free = places.find((place) => !taken.some((other) => overlap(place, other))) ?? places[0];
    taken.push(free);
    const look = label.isOnFront ? "label strong" : "label";
    svg.append(words(label.text, { x: free.left, y: free.bottom - 4, class: look }));
  }
}

/** Above and below the line of the interval, to the right and to the left of the mark, and then farther away. */
function* placesFor({ text, x, y }, width) {
  const length = text.length * LETTER_PX;
  const box = (left, bottom) => ({ left, right: left + length, top: bottom - LINE_PX, bottom });
  for (const bottom of [y - 5, y + 22, y - 19, y + 36, y - 33, y + 50]) {
    if (x + 4 + length < width) yield box(x + 4, bottom);
    if (x - 4 - length > MARGIN.left) yield box(x - 4 - length, bottom);
  }
  yield box(Math.max(MARGIN.left, Math.min(x - length / 2, width - length)), y - 9);
}

function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}

function shape(kind, attributes) {
  const element = document.createElementNS(SPACE, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function words(text, attributes) {
  const element = shape("text", attributes);
  element.textContent = text;
  return element;
}
